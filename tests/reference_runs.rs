//! Two fine-tunes by `concord train` over two stages against torch and peft (`shared/reference`),
//! step by step: the same batches, the same initial adapter.

mod pool;

use std::path::Path;

use pool::{Pool, shared};
use serde_json::Value;

/// Runs a reference job and returns (loss, gradient norm) of each step.
fn run(shared: &Path, kind: &str, steps: usize, adapter: &str) -> Vec<(f64, f64)> {
    let reference = shared.join("reference").join(kind);
    let mut pool = Pool::new();
    pool.join("worker", &["--threads", "1"]);
    pool.join("worker", &["--threads", "1"]);
    let job = pool.dir.path().join("job.yaml");
    let text = format!(
        "base_model: {}\ndatasets: [{{path: {}, type: tokens}}]\n{}\nsequence_len: 128\n\
         micro_batch_size: 2\ngradient_accumulation_steps: 4\nmax_steps: {steps}\n\
         learning_rate: 1e-3\nlr_scheduler: cosine\nwarmup_steps: 5\nweight_decay: 0.01\n\
         max_grad_norm: 1.0\noutput_dir: {}\n",
        shared.join("models/tinystories-260k").display(),
        reference.join("batches.safetensors").display(),
        adapter.replace("REFERENCE", &reference.display().to_string()),
        pool.dir.path().join("out").display(),
    );
    std::fs::write(&job, text).unwrap();
    let train = pool.train(&job, &["--plan", "2x1", "--min-workers", "2"]);
    let mut log = Vec::new();
    while let Some(object) = train.next() {
        assert_ne!(object["event"], "failed", "{object}");
        assert_ne!(object["event"], "error", "{object}");
        if object["event"] == "step" {
            log.push((
                object["loss"].as_f64().unwrap(),
                object["grad_norm"].as_f64().unwrap(),
            ));
        }
    }
    log
}

fn compare(shared: &Path, kind: &str, log: &[(f64, f64)]) {
    let path = shared.join("reference").join(kind).join("expected.json");
    let expected: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let expected = expected["log"].as_array().unwrap();
    assert_eq!(log.len(), expected.len(), "{kind}: steps");
    let (mut worst_loss, mut worst_norm) = (0.0f64, 0.0f64);
    for ((loss, norm), entry) in log.iter().zip(expected) {
        worst_loss = worst_loss.max((loss - entry["loss"].as_f64().unwrap()).abs());
        worst_norm = worst_norm.max((norm / entry["grad_norm"].as_f64().unwrap() - 1.0).abs());
    }
    println!("{kind}: worst loss difference {worst_loss:.1e}, worst norm ratio {worst_norm:.1e}");
    assert!(worst_loss <= 2e-3 && worst_norm <= 0.01, "{kind}");
}

#[test]
fn lora_follows_peft() {
    let Some(shared) = shared() else { return };
    let adapter = "adapter: lora\ninitial_adapter: REFERENCE/initial";
    compare(
        &shared,
        "train-lora",
        &run(&shared, "train-lora", 40, adapter),
    );
}

#[test]
fn full_follows_torch() {
    let Some(shared) = shared() else { return };
    compare(
        &shared,
        "train-full",
        &run(&shared, "train-full", 20, "adapter: full"),
    );
}
