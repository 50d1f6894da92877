//! A Llama of a few layers, made here: configuration, byte-level tokenizer, random weights.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use concord_kernels::Tensor;
use concord_kernels::rng::Philox;
use concord_models::config::DecoderConfig;
use concord_models::export::{ExportDtype, write_tensors};
use serde_json::{Map, Value, json};

/// Decoder layers: one for each stage of the longest pipeline, and one more.
pub const LAYERS: u32 = 4;
/// Width of the hidden states.
pub const HIDDEN: u32 = 64;

const BYTES: u32 = 256;

/// Writes a model folder with weights from `seed`. The result is the number of weights.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write(folder: &Path, seed: u64) -> anyhow::Result<usize> {
    let config = config().to_string();
    let tensors = weights(&DecoderConfig::from_json(&config)?, seed)?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    write_file(&folder.join("config.json"), &config)?;
    write_file(&folder.join("tokenizer.json"), &tokenizer().to_string())?;
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
        "vocab_size": BYTES + 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
        "bos_token_id": BYTES, "eos_token_id": BYTES + 1,
    })
}

/// Norms of one; matrices that keep the variance of what goes through them.
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

/// Keeps what is added to the residual stream small, so that all tokens are about equally probable
/// at first.
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

/// A tokenizer of the 256 bytes, with `<s>` and `</s>` after them.
fn tokenizer() -> Value {
    let byte = |byte: u8| (byte_name(byte).to_string(), Value::from(byte));
    let vocab: Map<String, Value> = (0..=255).map(byte).collect();
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        })
    };
    let level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(BYTES, "<s>"), special(BYTES + 1, "</s>")],
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab, "merges": [],
        },
    })
}

/// How byte-level tokenizers spell a byte: as itself where it is printable, else as the next
/// character from U+0100 on.
fn byte_name(byte: u8) -> char {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if is_printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !is_printable(*byte)).count();
    u32::try_from(before)
        .ok()
        .and_then(|count| char::from_u32(0x100 + count))
        .unwrap_or('?')
}

#[cfg(test)]
mod tests {
    use concord_models::weights::ModelFolder;
    use concord_text::TextTokenizer;

    use super::*;
    use crate::support::job_file::JobFile;

    /// The jobs of `examples/` start from a model of this kind.
    #[test]
    fn the_examples_fit_the_model() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 7).unwrap();
        let config = DecoderConfig::from_folder(folder.path()).unwrap();
        let tokenizer = TextTokenizer::open(folder.path()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["story", "questions"] {
            let job = JobFile::read(&root.join(format!("examples/{name}.yaml"))).unwrap();
            for source in &job.datasets {
                let mut source = source.clone();
                source.path = root.join(&source.path);
                let loaded = source
                    .load(Some(&tokenizer), &config, job.sequence_len)
                    .unwrap();
                assert!(loaded.count() >= 16, "{name}: {} sequences", loaded.count());
                assert_eq!((loaded.truncated, loaded.skipped), (0, 0), "{name}");
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
