//! A head that is packed, or that a GGUF file has of its own; and weights that lie in two ways.

use std::fs;
use std::path::Path;

use concord_models::weights::ModelFolder;
use serde_json::{Value, json};

use crate::gguf_writer::GgufWriter;
use crate::methods::{Store, Stored, gptq, methods, plain_f32};
use crate::storages::{self, q4_k, write_model};

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn quantization() -> Value {
    let method = methods().into_iter().find(|method| method.0 == "GPTQ");
    method.unwrap().1
}

/// The head and the layers packed.
fn packs_the_head(module: &str) -> Store {
    match module {
        "model.embed_tokens" => plain_f32,
        _ => gptq,
    }
}

fn tie(folder: &Path, tied: bool) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["tie_word_embeddings"] = json!(tied);
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_packed_head_is_read_and_is_the_models_own() {
    let plain = tempfile::tempdir().unwrap();
    write_model(plain.path(), Value::Null, |_| plain_f32);
    let plain = ModelFolder::open(plain.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), quantization(), packs_the_head);
    for tied in [false, true] {
        tie(folder.path(), tied);
        let model = ModelFolder::open(folder.path()).unwrap();
        assert!(!model.config().tie_embeddings, "{tied}");
        assert!(model.is_packed(HEAD) && !model.is_packed(EMBED));
        assert_eq!(model.load(HEAD).unwrap(), plain.load(HEAD).unwrap());
        let text: Value = serde_json::from_str(model.config_json()).unwrap();
        assert_eq!(text["tie_word_embeddings"], false);
    }
}

fn embedding_as_head(shape: [usize; 2], _: &[i8]) -> Stored {
    let (_, levels) = storages::matrix(EMBED);
    gptq(shape, &levels)
}

/// The embedding plain, the head packed, and the same numbers in both.
#[test]
fn a_packed_head_of_the_embeddings_numbers_is_the_embedding() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), quantization(), |module| match module {
        "lm_head" => embedding_as_head,
        module => packs_the_head(module),
    });
    tie(folder.path(), true);
    let model = ModelFolder::open(folder.path()).unwrap();
    assert!(model.config().tie_embeddings);
    assert_eq!(model.load(HEAD).unwrap(), model.load(EMBED).unwrap());
}

/// A folder with a GGUF file and a configuration that says whether the head is the embedding.
fn beside(file: &GgufWriter, tied: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.gguf"), file.whole()).unwrap();
    let mut config = storages::config();
    config["tie_word_embeddings"] = json!(tied);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn a_gguf_file_has_its_head_whatever_the_configuration_says() {
    let file = q4_k();
    let named = beside(&file, false);
    let untied = ModelFolder::open(named.path()).unwrap();
    let head = untied.load(HEAD).unwrap();
    assert_ne!(head, untied.load(EMBED).unwrap());
    let folder = beside(&file, true);
    let model = ModelFolder::open(folder.path()).unwrap();
    assert!(!model.config().tie_embeddings);
    assert_eq!(model.load(HEAD).unwrap(), head);
    assert!(
        model
            .config_json()
            .contains(r#""tie_word_embeddings":false"#)
    );
    assert_eq!(model.config().canonical(), untied.config().canonical());

    // With the same numbers twice the head is the embedding, and without one it must be said.
    let mut same = q4_k();
    let bytes = same.taken("token_embd.weight");
    same.taken("output.weight");
    for name in ["token_embd.weight", "output.weight"] {
        same.tensor(name, &[64, 256], 12, bytes.clone());
    }
    let folder = beside(&same, true);
    assert!(
        ModelFolder::open(folder.path())
            .unwrap()
            .config()
            .tie_embeddings
    );
    same.taken("output.weight");
    let folder = beside(&same, true);
    assert!(
        ModelFolder::open(folder.path())
            .unwrap()
            .config()
            .tie_embeddings
    );
    let folder = beside(&same, false);
    let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("model.gguf") && error.contains(HEAD),
        "{error}"
    );
}

fn both(shape: [usize; 2], levels: &[i8]) -> Stored {
    [gptq(shape, levels), plain_f32(shape, levels)].concat()
}

#[test]
fn a_weight_in_two_ways_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), quantization(), |module| match module {
        "model.layers.0.mlp.up_proj" => both,
        module => packs_the_head(module),
    });
    let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
    for part in [
        "model.safetensors",
        "`model.layers.0.mlp.up_proj.weight`",
        "up_proj.qweight",
        "two ways",
    ] {
        assert!(error.contains(part), "{error} does not say {part}");
    }
}

#[test]
fn a_method_without_packed_weights_is_refused() {
    for (name, quantization, _) in methods() {
        if quantization.is_null() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        write_model(folder.path(), quantization, |_| plain_f32);
        let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
        for part in ["config.json", "quantization_config", "packed so", "remove"] {
            assert!(error.contains(part), "{name}: {error} does not say {part}");
        }
    }
}

#[test]
fn a_configuration_beside_a_file_must_not_contradict_it() {
    let file = q4_k();
    for (key, value, parts) in [
        (
            "rms_norm_eps",
            json!(1e-6),
            ["rms_norm_eps", "layer_norm_rms_epsilon"],
        ),
        (
            "max_position_embeddings",
            json!(64),
            ["max_position_embeddings", "128"],
        ),
        (
            "num_key_value_heads",
            json!(4),
            ["num_key_value_heads", "head_count_kv"],
        ),
        (
            "architectures",
            json!(["Qwen2ForCausalLM"]),
            ["Qwen2ForCausalLM", "`llama`"],
        ),
    ] {
        let folder = beside(&file, false);
        let path = folder.path().join("config.json");
        let mut config = storages::config();
        config[key] = value;
        if key == "architectures" {
            config["model_type"] = json!("qwen2");
        }
        fs::write(&path, config.to_string()).unwrap();
        let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
        for part in ["config.json", "model.gguf"].iter().chain(&parts) {
            assert!(error.contains(part), "{error} does not say {part}");
        }
        // The file alone says what it is.
        assert!(ModelFolder::open(&folder.path().join("model.gguf")).is_ok());
    }
    let folder = beside(&file, false);
    let mut config = storages::config();
    config["quantization_config"] = quantization();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let error = ModelFolder::open(folder.path()).unwrap_err().to_string();
    for part in ["quantization_config", "model.gguf", "says itself"] {
        assert!(error.contains(part), "{error} does not say {part}");
    }
    // What the file does not say, the configuration may.
    let folder = beside(&file, false);
    let mut config = storages::config();
    config["rope_theta"] = json!(20_000.0);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let model = ModelFolder::open(folder.path()).unwrap();
    assert_eq!(model.config().rope.theta, 20_000.0);
}

#[test]
fn yarn_in_a_file_has_the_length_of_the_pre_training() {
    let mut file = q4_k();
    file.string("llama.rope.scaling.type", "yarn");
    file.pair(
        "llama.rope.scaling.factor",
        6,
        4.0_f32.to_le_bytes().to_vec(),
    );
    file.u32("llama.rope.scaling.original_context_length", 64);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, file.whole()).unwrap();
    let model = ModelFolder::open(&path).unwrap();
    let mut config = storages::config();
    config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0,
                                    "original_max_position_embeddings": 64});
    let expected = concord_models::config::DecoderConfig::from_json(&config.to_string()).unwrap();
    assert_eq!(model.config().rope, expected.rope);
    // Four times as many positions as in the pre-training, whatever the file says.
    assert_eq!(model.config().max_positions, 256);
    assert_eq!(model.config().canonical(), expected.canonical());
}
