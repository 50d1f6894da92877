//! Checks of a whole fine-tune and a whole generation on both devices.

use std::sync::Arc;

use concord_kernels::Device;
use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::ops::sample::Sampling;
use concord_models::ModelError;
use concord_models::config::DecoderConfig;
use concord_models::generate::Generator;
use concord_models::golden::{FineTune, FineTuneKind, MadeModel, tiny_llama};

use super::SuiteSize;
use super::check::Check;
use super::find::unlike;

/// Steps of a checked fine-tune.
const STEPS: u32 = 20;
/// Steps after which digests are compared, so that the first difference can be located.
const COMPARED: [u32; 4] = [1, 2, 5, STEPS];
/// Steps before a generation, so that low-rank factors are not zero.
const STEPS_BEFORE_TEXT: u32 = 3;
/// Tokens that are generated.
const TOKENS: usize = 64;

/// A fine-tune of a small random Llama.
pub fn fit(size: SuiteSize, seed: u64, kind: FineTuneKind) -> FineTune {
    let (config, sequence_len) = match size {
        SuiteSize::Small => {
            let config = DecoderConfig {
                max_positions: 128,
                ..tiny_llama()
            };
            (config, 23)
        }
        // Longer than an atom of tokens, a block of keys and a chunk of blocks.
        SuiteSize::Full => {
            let config = DecoderConfig {
                hidden: 512,
                intermediate: 1_376,
                layers: 4,
                heads: 8,
                kv_heads: 4,
                head_dim: 64,
                vocab: 4_099,
                max_positions: 640,
                sliding_window: vec![None, None, None, Some(200)],
                ..tiny_llama()
            };
            (config, 600)
        }
    };
    // With this variance the weights preserve the size of activations.
    let reach = (3.0 / config.hidden as f32).sqrt();
    FineTune {
        kind,
        model: MadeModel {
            config: Arc::new(config),
            seed,
            reach,
        },
        microbatches: 2,
        sequences: 2,
        sequence_len,
    }
}

pub fn checks(size: SuiteSize, seed: u64) -> Vec<Check> {
    let mut checks = Vec::new();
    for kind in FineTuneKind::ALL {
        let name = format!("training, {kind:?}, {STEPS} steps");
        checks.push(Check::new("training", name, move |subjects| {
            let fit = fit(size, seed, kind);
            let (got, expected) = (digests(&fit, &subjects.gpu)?, digests(&fit, &subjects.cpu)?);
            Ok(unlike("digest", &got, &expected))
        }));
    }
    let prompt_len = match size {
        SuiteSize::Small => 37,
        SuiteSize::Full => 300,
    };
    for (name, temperature) in [("greedy", 0.0), ("sampled", 0.9)] {
        let name = format!("generation, {name}, {TOKENS} tokens");
        let sampling = Sampling {
            temperature,
            top_k: 0,
            top_p: if temperature > 0.0 { 0.95 } else { 1.0 },
            seed,
        };
        checks.push(Check::new("generation", name, move |subjects| {
            let fit = fit(size, seed, FineTuneKind::Lora);
            let vocab = fit.model.config.vocab as u32;
            let prompt = CaseInput::new(seed, InputKind::Ordinary).ids(70, prompt_len, vocab);
            let text = |device| text(&fit, device, &prompt, &sampling);
            Ok(unlike(
                "token",
                &text(&subjects.gpu)?,
                &text(&subjects.cpu)?,
            ))
        }));
    }
    checks
}

/// The digests after the steps of [`COMPARED`], each with its step.
fn digests(fit: &FineTune, device: &Device) -> Result<Vec<String>, ModelError> {
    let mut run = fit.start(device)?;
    let mut digests = Vec::new();
    for step in COMPARED {
        while run.steps() < step {
            run.step()?;
        }
        digests.push(format!("{} after step {step}", run.digest()?));
    }
    Ok(digests)
}

/// The tokens after the prompt, which is fed in two parts.
fn text(
    fit: &FineTune,
    device: &Device,
    prompt: &[u32],
    sampling: &Sampling,
) -> Result<Vec<u32>, ModelError> {
    let mut run = fit.start(device)?;
    for _ in 0..STEPS_BEFORE_TEXT {
        run.step()?;
    }
    let mut generator = Generator::new(run.stage(), *sampling)?;
    let (first, rest) = prompt.split_at(prompt.len() / 3);
    generator.next(first)?;
    let mut tokens = vec![generator.next(rest)?];
    while tokens.len() < TOKENS {
        tokens.push(generator.next(&tokens[tokens.len() - 1..])?);
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_of_both_sizes_train() {
        for (size, steps) in [(SuiteSize::Small, STEPS), (SuiteSize::Full, 2)] {
            for kind in FineTuneKind::ALL {
                let mut run = fit(size, 3, kind).start(&Device::cpu(2)).unwrap();
                let losses: Vec<f32> = (0..steps).map(|_| run.step().unwrap()).collect();
                // From a guess among 67 or 4,099 tokens, that is ln 67 or ln 4099, and not far from
                // it.
                assert!(
                    losses.iter().all(|loss| (2.0..14.0).contains(loss)),
                    "{losses:?}"
                );
            }
        }
    }
}
