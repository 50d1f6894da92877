//! A model whose configuration says that its head is the embedding, and whose weights say
//! otherwise: everything agrees that it is the model of its weights.

use std::fs;

use serde_json::{Value, json};

use crate::program::{arg, concord};
use crate::tiny_model::TinyModel;

/// The same weights twice, with a head of their own; the first configuration says so.
fn twins() -> [TinyModel; 2] {
    [false, true].map(|says_tied| {
        let model = TinyModel::new();
        model.configure("tie_word_embeddings", json!(says_tied));
        model
    })
}

/// Trains every tensor for two steps, and gives the result.
fn train(model: &TinyModel) -> Value {
    let data = model.file("data.txt");
    fs::write(&data, "w3 w4 w5 w6 w7 w9 w12 w3 w4 w8 ".repeat(20)).unwrap();
    let job = model.file("job.yaml");
    let (dir, data) = (model.dir().display(), data.display());
    let text = format!(
        "{{base_model: {dir}, datasets: [{{path: {data}, type: text}}], max_steps: 2,\n\
         sequence_len: 16, learning_rate: 1e-2, adapter: full, output_dir: {dir}/out}}"
    );
    fs::write(&job, text).unwrap();
    let mut objects = concord(["train", arg(&job), "--audit-rate", "1", "--json"])
        .good()
        .objects();
    objects.pop().unwrap()
}

#[test]
fn a_text_goes_on_as_by_the_head_of_the_weights() {
    let texts = twins().map(|model| {
        let args = [
            "generate",
            "--model",
            arg(model.dir()),
            "--prompt",
            "w3",
            "--ignore-eos",
        ];
        concord([&args[..], &["--temperature", "0"]].concat())
            .good()
            .stdout
    });
    assert!(!texts[0].is_empty());
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn a_job_is_that_of_the_untied_model_and_its_result_too() {
    let models = twins();
    let results = [&models[0], &models[1]].map(train);
    for key in ["job", "record_digest", "loss"] {
        assert_eq!(results[0][key], results[1][key], "{key}");
    }
    for model in &models {
        let out = model.file("out");
        let proof = out.join("proof");
        concord(["verify", arg(&proof), "--model", arg(&out)]).unproven();
        let config = fs::read(out.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["tie_word_embeddings"], false);
    }
}
