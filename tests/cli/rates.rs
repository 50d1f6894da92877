//! Rates of some tensors, and curves, that only some tools have: one hash on every cut, a proof.

use std::fs;

use serde_json::Value;

use crate::program::{Ran, arg, concord};
use crate::tiny_model::TinyModel;

const STEPS: usize = 6;

fn train(model: &TinyModel, name: &str, keys: &str, more: &[&str]) -> Ran {
    let data = model.file("data.txt");
    fs::write(&data, "w3 w4 w5 w6 w7 w9 w12 w3 w4 w8 ".repeat(20)).unwrap();
    let job = model.file(&format!("{name}.yaml"));
    let text = format!(
        "{{base_model: {}, datasets: [{{path: {}, type: text}}], max_steps: {STEPS},\n\
         sequence_len: 16, learning_rate: 1e-2, gradient_accumulation_steps: 2, replay_steps: 2,\n\
         output_dir: {}, lora_r: 2, {keys}}}",
        model.dir().display(),
        data.display(),
        model.file(name).display()
    );
    fs::write(&job, text).unwrap();
    concord([&["train", arg(&job), "--json"], more].concat())
}

/// The result, and the rates of its steps.
fn result(ran: Ran) -> (Value, Vec<f64>) {
    let mut objects = ran.good().objects();
    let result = objects.pop().unwrap();
    let rate = |object: &Value| object["learning_rate"].as_f64();
    let steps = objects.iter().filter(|object| object["event"] == "step");
    (result, steps.filter_map(rate).collect())
}

#[test]
fn lora_plus_under_rex_has_one_hash_and_a_replay() {
    let model = TinyModel::new();
    let plus = "lr_scheduler: rex, warmup_steps: 2, min_lr_ratio: 0.1, peft_use_dora: true,\n\
                loraplus_lr_ratio: 16";
    let two = ["--workers", "local:2", "--plan", "2x1"];
    let (one, rates) = result(train(&model, "one", plus, &[]));
    let (cut, _) = result(train(&model, "cut", plus, &two));
    for key in ["job", "record_digest", "loss"] {
        assert_eq!(one[key], cut[key], "{key}");
    }
    // Warm-up from above 0, the peak, and the floor in the last step.
    let expected = [0.005, 0.01, 0.0097097, 0.0091818, 0.0079231, 0.001];
    assert_eq!(rates.len(), STEPS);
    for (rate, expected) in rates.iter().zip(expected) {
        assert!((rate - expected).abs() < 1e-3 * expected, "{rates:?}");
    }
    let (out, job) = (model.file("one"), model.file("one.yaml"));
    let (proof, out) = (out.join("proof"), arg(&out).to_string());
    let replay = ["verify", arg(&proof), "--model", &out, "--job", arg(&job)];
    concord([&replay[..], &["--replay", "all"]].concat()).good();

    // The same rates with another step of the matrices B are another job.
    let plain = plus.replace("loraplus_lr_ratio: 16", "seed: 42");
    let (plain, plain_rates) = result(train(&model, "plain", &plain, &[]));
    assert_eq!(plain_rates, rates);
    assert_ne!(plain["record_digest"], one["record_digest"]);
    let same = plus.replace("loraplus_lr_ratio: 16", "loraplus_lr_ratio: 1");
    let (same, _) = result(train(&model, "same", &same, &[]));
    assert_eq!(same["job"], plain["job"], "a ratio of 1 is none");
    train(&model, "full", "adapter: full, loraplus_lr_ratio: 2", &[]).refused(&["lora_r"]);
}
