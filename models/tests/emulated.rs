//! Whole models on an emulated GPU: the bits of the CPU, and errors where the GPU fails.
#![cfg(feature = "emulator")]

use std::sync::Arc;

use concord_kernels::cuda::emulator::{EmulatorOptions, Turns};
use concord_kernels::cuda::{Arch, Cuda, CudaError};
use concord_kernels::ops::sample::Sampling;
use concord_kernels::{Device, KernelError};
use concord_models::ModelError;
use concord_models::config::{DecoderConfig, Family, QkNorm};
use concord_models::generate::Generator;
use concord_models::golden::{
    FineTune, FineTuneKind, GOLDENS, MadeModel, tiny_experts, tiny_llama,
};

fn emulated(options: EmulatorOptions) -> Device {
    Device::Cuda(Cuda::emulated(options))
}

fn shuffled(arch: u32) -> Device {
    emulated(EmulatorOptions {
        arch: Arch(arch),
        turns: Turns::Shuffled(u64::from(arch)),
        ..EmulatorOptions::default()
    })
}

/// A fine-tune of a model with every part that a decoder may have and `tiny_llama` lacks.
fn with_all_parts(kind: FineTuneKind) -> FineTune {
    let config = DecoderConfig {
        family: Family::Qwen3,
        sliding_window: vec![Some(5), None],
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: Some(QkNorm::Heads),
        tie_embeddings: true,
        ..tiny_llama()
    };
    let golden = FineTune::golden(kind);
    let model = MadeModel {
        config: Arc::new(config),
        ..golden.model
    };
    FineTune { model, ..golden }
}

fn digest(fit: &FineTune, device: &Device, steps: u32) -> Result<String, ModelError> {
    let mut run = fit.start(device)?;
    for _ in 0..steps {
        run.step()?;
    }
    Ok(run.digest()?)
}

#[test]
fn training_has_the_golden_bits() {
    for arch in [61, 80] {
        let device = shuffled(arch);
        for golden in &GOLDENS {
            let (steps, expected) = golden.digests[0];
            let got = golden.digests_on(&device, steps).unwrap();
            assert_eq!(got, [expected], "{:?} on {}", golden.kind, device.name());
        }
    }
}

#[test]
fn every_part_of_a_model_has_the_bits_of_the_cpu() {
    let device = shuffled(75);
    for kind in FineTuneKind::ALL {
        let fit = with_all_parts(kind);
        let expected = digest(&fit, &Device::cpu(1), 2).unwrap();
        assert_eq!(digest(&fit, &device, 2).unwrap(), expected, "{kind:?}");
    }
}

#[test]
fn experts_have_the_bits_of_the_cpu() {
    let device = shuffled(80);
    for kind in FineTuneKind::ALL {
        let golden = FineTune::golden(kind);
        let config = Arc::new(tiny_experts());
        let model = MadeModel {
            config,
            ..golden.model
        };
        let fit = FineTune { model, ..golden };
        let expected = digest(&fit, &Device::cpu(1), 2).unwrap();
        assert_eq!(digest(&fit, &device, 2).unwrap(), expected, "{kind:?}");
    }
}

#[test]
fn generated_tokens_are_those_of_the_cpu() {
    let fit = with_all_parts(FineTuneKind::Lora);
    let tokens = |device: &Device, temperature: f32| {
        let run = fit.start(device).unwrap();
        let sampling = Sampling {
            temperature,
            top_k: 20,
            top_p: 0.9,
            seed: 3,
        };
        let mut generator = Generator::new(run.stage(), sampling).unwrap();
        let mut tokens = vec![generator.next(&[1, 5, 9, 2, 60, 7, 7]).unwrap()];
        while tokens.len() < 12 {
            let last = tokens[tokens.len() - 1];
            tokens.push(generator.next(&[last]).unwrap());
        }
        tokens
    };
    let device = shuffled(80);
    for temperature in [0.0, 1.5] {
        let expected = tokens(&Device::cpu(1), temperature);
        assert_eq!(tokens(&device, temperature), expected, "at {temperature}");
    }
}

/// Forward, backward and update stay on the GPU: what a step fetches are losses, norms and places
/// of numbers that are none, however many layers there are.
#[test]
fn a_step_fetches_a_few_numbers_and_no_tensor() {
    let fetched = |kind, layers: usize| {
        let (gpu, watch) = Cuda::emulated_with_watch(EmulatorOptions::default());
        let config = DecoderConfig {
            layers,
            sliding_window: vec![None; layers],
            ..tiny_llama()
        };
        let golden = FineTune::golden(kind);
        let model = MadeModel {
            config: Arc::new(config),
            ..golden.model
        };
        let fit = FineTune { model, ..golden };
        let mut run = fit.start(&Device::Cuda(gpu)).unwrap();
        watch.fetched();
        run.step().unwrap();
        watch.fetched()
    };
    for kind in FineTuneKind::ALL {
        let (few, many) = (fetched(kind, 1), fetched(kind, 4));
        assert_eq!(
            few.len(),
            many.len(),
            "{kind:?}: {few:?} of 1 layer, {many:?} of 4"
        );
        // A word for each tensor that is looked at, a number for each token.
        assert!(
            many.iter().all(|&bytes| bytes <= 8 * 3 * 64),
            "{kind:?}: {many:?}"
        );
    }
}

/// What a GPU said that fails.
fn of_gpu(error: &ModelError) -> &CudaError {
    match error {
        ModelError::Kernel(KernelError::Cuda(error)) => error,
        other => panic!("not of the GPU: {other}"),
    }
}

#[test]
fn too_little_memory_is_an_error_that_names_what_is_held() {
    let fit = FineTune::golden(FineTuneKind::Full);
    let (steps, expected) = GOLDENS[1].digests[0];
    assert_eq!(GOLDENS[1].kind, fit.kind);
    let mut texts = Vec::new();
    for kib in [1, 100, 200, 400, 800, 1_600, 65_536] {
        let memory_bytes = kib << 10;
        let device = emulated(EmulatorOptions {
            memory_bytes,
            ..EmulatorOptions::default()
        });
        match digest(&fit, &device, if kib > 10_000 { steps } else { 1 }) {
            Ok(got) if kib > 10_000 => assert_eq!(got, expected),
            Ok(_) => {}
            Err(error) => {
                let found = of_gpu(&error);
                assert!(matches!(found, CudaError::OutOfMemory { .. }), "{found}");
                texts.push(error.to_string());
            }
        }
    }
    assert!(texts.len() >= 3, "{texts:#?}");
    assert!(
        texts.iter().any(|text| text.contains("weights")),
        "{texts:#?}"
    );
}

#[test]
fn a_lost_gpu_is_an_error_wherever_it_happens() {
    let fit = FineTune::golden(FineTuneKind::Lora);
    for launches in [0, 3, 100, 300, 700] {
        let device = emulated(EmulatorOptions {
            lost_after: Some(launches),
            ..EmulatorOptions::default()
        });
        let error = digest(&fit, &device, 2).unwrap_err();
        let found = of_gpu(&error);
        assert!(
            matches!(found, CudaError::Lost { .. }),
            "{launches}: {found}"
        );
    }
}
