//! Models that cannot be computed: each is refused with the file and the cause.

use std::fs;

use serde_json::json;

use crate::program::{arg, concord};
use crate::tiny_model::{TinyModel, VOCAB, tokenizer};

#[track_caller]
fn refused(model: &TinyModel, words: &[&str]) {
    concord(["generate", "--model", arg(model.dir()), "--prompt", "w3"]).refused(words);
}

#[test]
fn a_sound_model_is_taken() {
    let model = TinyModel::new();
    concord(["generate", "--model", arg(model.dir()), "--prompt", "w3"]).good();
}

#[test]
fn a_folder_that_is_none() {
    concord(["generate", "--model", "/no/such/folder", "--prompt", "w3"])
        .refused(&["/no/such/folder", "there is no such folder"]);
    let empty = tempfile::tempdir().unwrap();
    concord(["generate", "--model", arg(empty.path()), "--prompt", "w3"]).refused(&["config.json"]);
}

#[test]
fn weights_that_are_missing_cut_short_or_not_finite() {
    let model = TinyModel::new();
    let weights = model.file("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    refused(
        &model,
        &["model.safetensors", "not a usable safetensors file"],
    );
    fs::remove_file(&weights).unwrap();
    refused(&model, &["no weights", "model.safetensors"]);

    let mut broken = bytes.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, &broken).unwrap();
    refused(&model, &["model.safetensors", "NaN"]);
}

#[test]
fn weights_of_another_shape() {
    let model = TinyModel::new();
    model.configure("intermediate_size", json!(32));
    refused(&model, &["mlp", "[24, 16]", "[32, 16]"]);
}

#[test]
fn what_the_decoder_does_not_compute() {
    let cases = [
        (
            "architectures",
            json!(["MambaForCausalLM"]),
            "`MambaForCausalLM`",
        ),
        ("hidden_act", json!("gelu"), "`gelu`"),
        (
            "rope_scaling",
            json!({ "rope_type": "yarn", "factor": 2.0 }),
            "`yarn`",
        ),
    ];
    for (key, value, word) in cases {
        let model = TinyModel::new();
        model.configure(key, value);
        refused(&model, &["config.json", word, "not supported"]);
    }
}

#[test]
fn a_tokenizer_of_another_model() {
    let model = TinyModel::new();
    model.write("tokenizer.json", &tokenizer(VOCAB + 1));
    refused(&model, &["tokenizer.json", "w32", "32"]);
    fs::remove_file(model.file("tokenizer.json")).unwrap();
    refused(&model, &["tokenizer.json"]);
}
