//! `generation_config.json`.

use std::fs;

use concord_models::ModelError;
use concord_models::generation_config::GenerationConfig;
use serde_json::{Value, json};

use crate::fixtures::says;

fn read(value: &Value) -> Result<GenerationConfig, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("generation_config.json"),
        value.to_string(),
    )
    .unwrap();
    GenerationConfig::open(folder.path())
}

#[test]
fn what_it_says_of_drawing_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let none = GenerationConfig::open(folder.path()).unwrap();
    assert_eq!(none, GenerationConfig::default());
    let sampled = json!({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 20});
    let read_of = |value: &Value| {
        let read = read(value).unwrap();
        (
            read.temperature,
            read.top_p,
            read.top_k,
            read.not_applied.len(),
        )
    };
    assert_eq!(read_of(&sampled), (Some(0.6), Some(0.9), Some(20), 0));
    let greedy = json!({"do_sample": false, "temperature": 0.6});
    assert_eq!(read_of(&greedy), (Some(0.0), None, None, 0));
    let all = json!({"top_k": -1, "top_p": 1, "temperature": null});
    assert_eq!(read_of(&all), (None, Some(1.0), Some(0), 0));
}

#[test]
fn what_changes_no_token_is_passed_over() {
    let value = json!({
        "_from_model_config": true, "transformers_version": "5.24.0", "pad_token_id": -1,
        "bos_token_id": 1, "eos_token_id": [2, 3], "max_new_tokens": 2048, "max_length": 4096,
        "use_cache": true, "output_scores": false, "num_beams": 1, "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0, "bad_words_ids": null, "suppress_tokens": [], "min_p": 0.0,
        "typical_p": 1.0, "stop_strings": null, "a_key_of_tomorrow": null, "guidance_scale": 1
    });
    assert_eq!(read(&value).unwrap(), GenerationConfig::default());
}

#[test]
fn what_changes_tokens_and_is_not_applied_is_told_by_name() {
    let table = json!({
        "repetition_penalty": 1.05, "min_p": 0.1, "no_repeat_ngram_size": 3, "num_beams": 4,
        "bad_words_ids": [[7]], "suppress_tokens": [1], "begin_suppress_tokens": [2],
        "forced_bos_token_id": 3, "forced_eos_token_id": 4, "stop_strings": ["x"],
        "min_new_tokens": 5, "typical_p": 0.9, "epsilon_cutoff": 0.1, "guidance_scale": 2.0,
        "renormalize_logits": true, "a_key_of_tomorrow": 1
    });
    let told = read(&table).unwrap().not_applied;
    let table = table.as_object().unwrap();
    assert_eq!(told.len(), table.len());
    for (key, value) in table {
        let one = told
            .iter()
            .find(|one| one.contains(&format!("`{key}` is {value}")));
        says(one.expect(key), &["generation_config.json", "not applied"]);
    }
}

#[test]
fn what_cannot_be_drawn_by_is_refused() {
    for (key, value) in [
        ("temperature", json!(5)),
        ("temperature", json!(-0.1)),
        ("temperature", json!("warm")),
        ("top_p", json!(0)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-2)),
        ("top_k", json!(2.5)),
        ("do_sample", json!("yes")),
    ] {
        let error = read(&json!({ key: value })).unwrap_err();
        says(
            error,
            &[
                "generation_config.json",
                &format!("`{key}` is {value}"),
                "must be",
            ],
        );
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("generation_config.json"),
        r#"{"top_k": 1, "top_k": 2}"#,
    )
    .unwrap();
    let error = GenerationConfig::open(folder.path()).unwrap_err();
    says(error, &["generation_config.json", "`top_k` is there twice"]);
}
