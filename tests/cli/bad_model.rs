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
        ("hidden_act", json!("mish"), "`mish`"),
        (
            "rope_scaling",
            json!({ "rope_type": "spiral", "factor": 2.0 }),
            "`spiral`",
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

#[test]
fn keys_and_tensors_that_may_make_another_model() {
    for (key, value) in [
        ("logits_scaling", json!(8.0)),
        ("quantization_config", json!({ "quant_method": "aqlm" })),
        ("a_key_of_tomorrow", json!(1)),
        ("model_type", json!("qwen2")),
    ] {
        let model = TinyModel::new();
        model.configure(key, value);
        refused(&model, &["config.json", &format!("`{key}")]);
    }
    let model = TinyModel::new();
    model.configure("num_hidden_layers", json!(1));
    refused(
        &model,
        &[
            "model.safetensors",
            "`model.layers.1.",
            "num_hidden_layers = 1",
        ],
    );
}

#[test]
fn what_a_generation_config_asks_for_is_done_refused_or_told() {
    let model = TinyModel::new();
    let generate = || {
        concord([
            "generate",
            "--model",
            arg(model.dir()),
            "--prompt",
            "w3",
            "--seed",
            "5",
        ])
    };
    model.write("generation_config.json", &json!({ "top_p": 0 }));
    refused(&model, &["generation_config.json", "`top_p` is 0"]);
    model.write(
        "generation_config.json",
        &json!({ "repetition_penalty": 1.1 }),
    );
    let told = generate().good().stderr;
    assert!(
        told.contains("`repetition_penalty` is 1.1, which is not applied"),
        "{told}"
    );
    model.write(
        "generation_config.json",
        &json!({ "do_sample": false, "temperature": 2.0 }),
    );
    let greedy = generate().good();
    assert!(!greedy.stderr.contains("not applied"), "{}", greedy.stderr);
    fs::remove_file(model.file("generation_config.json")).unwrap();
    let args = [
        "generate",
        "--model",
        arg(model.dir()),
        "--prompt",
        "w3",
        "--temperature",
        "0",
    ];
    assert_eq!(greedy.stdout, concord(args).good().stdout);
}

#[test]
fn dropout_in_the_configuration_is_no_reason_not_to_generate_but_not_to_train() {
    let model = TinyModel::new();
    model.configure("attention_dropout", json!(0.1));
    concord(["generate", "--model", arg(model.dir()), "--prompt", "w3"]).good();
    let (job, data) = (model.file("job.yaml"), model.file("data.txt"));
    fs::write(&data, "w3 w4 w5 w6 ".repeat(20)).unwrap();
    let (dir, data) = (model.dir().display(), data.display());
    let text = format!(
        "{{base_model: {dir}, datasets: [{{path: {data}, type: text}}], max_steps: 1,\n\
         sequence_len: 16, learning_rate: 1e-2, output_dir: {dir}/out}}"
    );
    fs::write(&job, text).unwrap();
    concord(["train", arg(&job)]).refused(&["config.json", "`attention_dropout` is 0.1"]);
}
