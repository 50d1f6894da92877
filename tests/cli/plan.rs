//! `concord plan` and `concord make-model`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ran, arg, concord};

/// A model that `concord make-model` makes.
fn made(shape: &str, more: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model");
    let args = ["make-model", "--shape", shape, arg(&out)];
    concord([&args[..], more].concat()).good();
    folder
}

fn model(folder: &TempDir) -> String {
    arg(&folder.path().join("model")).to_string()
}

fn plan(args: &[&str]) -> Ran {
    concord([&["plan", "--json"], args].concat())
}

/// The object of this event.
fn event(ran: &Ran, name: &str) -> Value {
    let found = ran.objects().into_iter().find(|o| o["event"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {ran:#?}"))
}

fn job(folder: &TempDir, more: &str) -> String {
    let path = folder.path().join("job.yaml");
    let text = format!(
        "base_model: {}\ndatasets: [{{path: nowhere.txt, type: text}}]\nsequence_len: 128\n\
         max_steps: 1\nlearning_rate: 1e-3\noutput_dir: out\n{more}",
        model(folder)
    );
    fs::write(&path, text).unwrap();
    arg(&path).to_string()
}

#[test]
fn a_made_model_is_the_same_each_time_and_is_a_model() {
    let (one, again) = (made("tiny", &[]), made("tiny", &[]));
    let other = made("tiny", &["--seed", "1"]);
    let bytes = |folder: &TempDir| fs::read(folder.path().join("model/model.safetensors")).unwrap();
    assert_eq!(bytes(&one), bytes(&again));
    assert_ne!(bytes(&one), bytes(&other));
    let folder = model(&one);
    let args = [
        "generate",
        "--model",
        &folder,
        "--prompt",
        "Ada",
        "--max-tokens",
        "4",
    ];
    let told = concord([&args[..], &["--json", "--ignore-eos"]].concat()).good();
    assert_eq!(event(&told, "completion")["tokens"], 4);
    // What is there already is not written over.
    concord(["make-model", "--shape", "tiny", &folder]).refused(&["is not empty"]);
    for dtype in ["f16", "f32"] {
        let made = made("tiny", &["--dtype", dtype]);
        plan(&[&model(&made)]).good();
    }
}

#[test]
fn the_parts_of_each_stage_add_up() {
    let folder = made("tiny", &[]);
    let ran = plan(&[&model(&folder)]).good();
    let told = event(&ran, "model");
    assert_eq!(
        (&told["layers"], &told["positions"]),
        (&4.into(), &256.into())
    );
    for name in ["serving", "training"] {
        let stages = event(&ran, name)["stages"].as_array().unwrap().clone();
        // In 1, 2 and 4 stages.
        assert_eq!(stages.len(), 7, "{name}");
        for stage in stages {
            let parts = stage.as_object().unwrap().iter();
            let parts = parts.filter(|(key, _)| key.ends_with("_bytes") && *key != "total_bytes");
            let sum: u64 = parts.map(|(_, bytes)| bytes.as_u64().unwrap()).sum();
            assert_eq!(stage["total_bytes"], sum, "{name}: {stage}");
        }
    }
    let text = concord(["plan", &model(&folder)]).good().stdout;
    for words in [
        "4 layers",
        "KV of 1k tokens",
        "a LoRA adapter of rank 8 on 7 projections",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

#[test]
fn a_model_without_its_weights_is_planned_by_its_configuration() {
    // What the weights would be stored as is not known then: codes are planned.
    let folder = made("tiny", &["--dtype", "f32"]);
    let whole = plan(&[&model(&folder)]).good();
    fs::remove_file(folder.path().join("model/model.safetensors")).unwrap();
    let bare = plan(&[&model(&folder)]).good();
    assert_eq!(event(&bare, "training"), event(&whole, "training"));
    assert_eq!(event(&bare, "model")["file_bytes"], Value::Null);
}

#[test]
fn workers_get_what_fits() {
    let folder = made("tiny", &[]);
    let total = |ran: &Ran, name: &str| {
        event(ran, name)["stages"][0]["total_bytes"]
            .as_u64()
            .unwrap()
    };
    let ran = plan(&["--job", &job(&folder, "adapter: full\n")]).good();
    assert!(
        !ran.objects()
            .iter()
            .any(|object| object["event"] == "serving")
    );
    let needed = total(&ran, "training");
    let job = job(&folder, "adapter: full\n");
    let workers = |bytes: u64| plan(&["--job", &job, "--workers", &bytes.to_string()]);
    let fit = event(&workers(needed).good(), "training_fit");
    assert_eq!(fit["workers"][0]["layers"], serde_json::json!([0, 4]));
    assert_eq!(fit["workers"][0]["needs_bytes"], needed);
    // One byte less, and what would help.
    let short = concord([
        "plan",
        "--job",
        &job,
        "--workers",
        &(needed - 1).to_string(),
    ]);
    short.refused(&[
        "does not fit",
        "1 bytes",
        "`adapter: lora`",
        "one more worker",
    ]);
    // On two workers a fixed half each.
    let halves = format!("{0},{0}", needed - 1);
    let fit = plan(&["--job", &job, "--workers", &halves]).good();
    let fit = event(&fit, "training_fit");
    assert_eq!(fit["workers"].as_array().unwrap().len(), 2);
}

#[test]
fn moments_in_8_bits_take_a_quarter_and_their_scales() {
    let folder = made("tiny", &[]);
    let moments = |optimizer: &str| {
        let more = format!("adapter: full\noptimizer: {optimizer}\n");
        let ran = plan(&["--job", &job(&folder, &more)]).good();
        let bytes = &event(&ran, "training")["stages"][0]["moments_bytes"];
        bytes.as_u64().unwrap() as f64
    };
    let share = moments("adamw_8bit") / moments("adamw_torch");
    assert!((0.2539..0.2541).contains(&share), "{share}");
}

#[test]
fn what_serving_lacks_is_named() {
    let folder = made("tiny", &[]);
    let refused = concord(["plan", &model(&folder), "--workers", "1M,2M"]);
    refused.refused(&["the model cannot be served", "more on each"]);
    let fits = plan(&[&model(&folder), "--workers", "1G"]).good();
    let fit = event(&fits, "serving_fit");
    assert!(fit["tokens"].as_u64().unwrap() >= 2_048, "{fit}");
}

#[test]
fn options_hold_over_the_job() {
    let folder = made("tiny", &[]);
    let job = job(&folder, "micro_batch_size: 4\n");
    let activations = |more: &[&str]| {
        let ran = plan(&[&["--job", &job], more].concat()).good();
        event(&ran, "training")["stages"][0]["activations_bytes"]
            .as_u64()
            .unwrap()
    };
    let all = activations(&[]);
    assert_eq!(activations(&["--batch", "1"]), all / 4);
    assert_eq!(activations(&["--sequence-length", "64"]), all / 2);
}

#[test]
fn what_is_no_model_is_refused() {
    concord(["plan", "no-such-folder"]).refused(&["no-such-folder"]);
    let empty = tempfile::tempdir().unwrap();
    concord(["plan", arg(empty.path())]).refused(&["config.json"]);
    let missing = Path::new("no-such-job.yaml");
    concord(["plan", "--job", arg(missing)]).refused(&["no-such-job.yaml"]);
}
