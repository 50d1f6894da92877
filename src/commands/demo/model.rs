//! A Llama of a few layers, made here: configuration, byte-level tokenizer, random weights.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use concord_kernels::Tensor;
use concord_kernels::rng::Philox;
use concord_models::config::DecoderConfig;
use concord_models::export::{ExportDtype, write_tensors};
use serde_json::{Value, json};

use crate::support::byte_tokenizer::{self, ENDS, VOCAB_MIN};

/// Decoder layers: one more than the stages of the longest pipeline.
pub const LAYERS: u32 = 4;
/// Width of the hidden states.
pub const HIDDEN: u32 = 64;

/// Writes a model folder with weights from `seed`. Returns the number of weights.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write(folder: &Path, seed: u64) -> anyhow::Result<usize> {
    let config = config().to_string();
    let tensors = weights(&DecoderConfig::from_json(&config)?, seed)?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    write_file(&folder.join("config.json"), &config)?;
    let tokenizer = byte_tokenizer::tokenizer(VOCAB_MIN).context("bytes make a tokenizer")?;
    write_file(&folder.join("tokenizer.json"), &tokenizer.to_string())?;
    let path = folder.join("model.safetensors");
    write_tensors(&path, &tensors, |_| ExportDtype::F32)?;
    Ok(tensors.values().map(|tensor| tensor.data().len()).sum())
}

/// Writes a text file.
///
/// # Errors
/// Naming the file that cannot be written.
pub fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
        "hidden_size": HIDDEN, "intermediate_size": HIDDEN * 5 / 2, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": HIDDEN / 4,
        "vocab_size": VOCAB_MIN, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
        "bos_token_id": ENDS[0], "eos_token_id": ENDS[1],
    })
}

/// Norm weights of 1, and matrices that preserve the variance of activations.
fn weights(config: &DecoderConfig, seed: u64) -> anyhow::Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (stream, spec) in (0..).zip(config.tensors()) {
        let draws = Philox::new(seed, stream);
        let len: usize = spec.shape.iter().product();
        let values: Vec<f32> = match spec.shape[..] {
            [_, width] => {
                // Uniform on [-a, a) has the variance a^2 / 3.
                let side = (3.0 / width as f32).sqrt() * gain(&spec.name);
                (0..len as u64)
                    .map(|index| side * (2.0 * draws.unit(index) - 1.0))
                    .collect()
            }
            _ => vec![1.0; len],
        };
        tensors.insert(spec.name, Tensor::new(&spec.shape, values)?);
    }
    Ok(tensors)
}

/// Small for the projections that add to the residual stream, so that all tokens are about equally
/// probable at first.
fn gain(name: &str) -> f32 {
    if name.contains("o_proj") || name.contains("down_proj") {
        0.5
    } else if name.contains("embed") {
        4.0
    } else if name.contains("lm_head") {
        0.25
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use concord_data::DataLoader;
    use concord_models::weights::ModelFolder;
    use concord_text::TextTokenizer;

    use super::*;
    use crate::support::job_file::{JobFile, ReadOptions};

    /// The jobs of `examples/` start from a model of this kind.
    #[test]
    fn the_examples_fit_the_model() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 7).unwrap();
        let config = DecoderConfig::from_folder(folder.path()).unwrap();
        let tokenizer = TextTokenizer::open(folder.path()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["story", "questions"] {
            let job = JobFile::read(
                &root.join(format!("examples/{name}.yaml")),
                &ReadOptions::default(),
            )
            .unwrap();
            for source in &job.datasets {
                let mut source = source.clone();
                source.path = root.join(&source.path);
                let mut loader = DataLoader {
                    tokenizer: Some(&tokenizer),
                    chat_template: None,
                    vocab: config.vocab,
                    max_positions: config.max_positions,
                    eos: &config.eos,
                    sequence_len: job.sequence_len,
                    progress: &mut |_| {},
                };
                let counts = loader.load(&source).unwrap().counts;
                assert!(counts.sequences >= 16, "{name}: {counts:?}");
                assert_eq!((counts.truncated, counts.skipped), (0, 0), "{name}");
            }
        }
    }

    #[test]
    fn the_folder_is_a_model_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let count = write(folder.path(), 7).unwrap();
        let model = ModelFolder::open(folder.path()).unwrap();
        let loaded: usize = model
            .config()
            .tensors()
            .iter()
            .map(|spec| model.load(&spec.name).unwrap().data().len())
            .sum();
        assert_eq!(count, loaded);
        let tokenizer = TextTokenizer::open(folder.path()).unwrap();
        tokenizer.check(model.config().vocab).unwrap();
        let ids = tokenizer.encode("One \u{e9}\n", false).unwrap();
        assert_eq!(ids, [79, 110, 101, 32, 0xc3, 0xa9, 10]);
    }
}
