//! A hundred honest jobs on a pool of unlike machines, every piece of their work re-run: nobody is
//! ever accused.

mod pool;

use std::path::Path;

use concord_kernels::isa::Isa;
use pool::{Pool, outcome, shared, small_job};

const JOBS: u32 = 100;

/// Cuts that the jobs take in turn: so every worker has every part in some job.
const PLANS: [&[&str]; 4] = [
    &["--plan", "3x1"],
    &["--plan", "1x3", "--shares", "1,1,2"],
    &["--plan", "2x1"],
    &["--plan", "auto"],
];

#[test]
fn nobody_is_accused_in_a_hundred_honest_jobs() {
    let Some(shared) = shared() else { return };
    let mut pool = Pool::new();
    let isas: Vec<String> = Isa::ALL
        .iter()
        .rev()
        .filter(|isa| isa.is_available())
        .map(Isa::to_string)
        .collect();
    for index in 0..3 {
        pool.join(
            "worker",
            &["--threads", "1", "--isa", &isas[index % isas.len()]],
        );
    }
    // Two threads, and an instruction set that most of the workers lack.
    pool.join(
        "checker",
        &["--threads", "2", "--isa", &isas[1 % isas.len()]],
    );
    let (mut audits, mut steps) = (0, 0);
    for seed in 0..JOBS {
        let job = small_job(
            pool.dir.path(),
            &shared,
            2,
            seed,
            "lora_target_modules: [q_proj, v_proj]",
        );
        let all = ["--audit-rate", "1"];
        let here = ["--min-workers", "3", "--min-checkers", "1"];
        let plan = PLANS[seed as usize % PLANS.len()];
        let honest = outcome(&pool.train(&job, &[&all[..], &here, plan].concat()));
        assert_eq!(honest.convictions, [], "seed {seed}");
        assert_eq!(
            honest.count("lost") + honest.count("voided"),
            0,
            "{:?}",
            honest.events
        );
        assert_eq!(
            honest.result["inconclusive"], 0,
            "seed {seed}: {}",
            honest.result
        );
        assert_eq!(honest.result["steps"], 2);
        let audited = honest.result["audits"].as_u64().unwrap();
        assert!(audited > 0, "seed {seed}: nothing was re-run");
        audits += audited;
        steps += honest.count("step");
    }
    println!(
        "{JOBS} jobs of {steps} steps: {audits} leaves re-run, nobody accused, none inconclusive"
    );
}

/// In a full fine-tune the gradients of microbatches are gone when their sum is audited: checkers
/// compute them again.
#[test]
fn every_leaf_of_a_full_fine_tune_is_found_right() {
    let Some(shared) = shared() else { return };
    for (plan, more) in [
        ("2x1", "optimizer: adamw_8bit"),
        ("1x2", "recompute: true"),
        ("1x1", "optimizer: adamw_torch"),
        (
            "2x1",
            "optimizer: lion_32bit\nweight_decay: 0.1\nweight_decay_exempt: norms_and_biases",
        ),
        ("1x2", "optimizer: sgd\nmomentum: 0.9\nnesterov: true"),
        ("2x1", "optimizer: sgd"),
        ("1x2", "optimizer: lion_8bit"),
    ] {
        every_leaf_is_found_right(&shared, false, plan, more);
    }
}

/// The norms of DoRA follow from the factors of the step, with which a checker computes them again.
#[test]
fn every_leaf_of_dora_is_found_right() {
    let Some(shared) = shared() else { return };
    let more = "peft_use_dora: true\nlora_dropout: 0.1";
    every_leaf_is_found_right(&shared, true, "2x1", more);
}

/// With LoRA+ matrices B and magnitudes have a rate of their own, which checkers derive, too.
#[test]
fn every_leaf_of_lora_plus_is_found_right() {
    let Some(shared) = shared() else { return };
    let more = "loraplus_lr_ratio: 16\npeft_use_dora: true\noptimizer: adamw_8bit";
    every_leaf_is_found_right(&shared, true, "1x2", more);
}

fn every_leaf_is_found_right(shared: &Path, is_lora: bool, plan: &str, more: &str) {
    let mut pool = Pool::new();
    for _ in 0..2 {
        pool.join("worker", &["--threads", "1"]);
    }
    pool.join("checker", &["--threads", "1"]);
    let job = small_job(pool.dir.path(), shared, 3, 0, more);
    let text = std::fs::read_to_string(&job).unwrap();
    let text = match is_lora {
        false => text.replace("adapter: lora\nlora_r: 4", "adapter: full"),
        true => text,
    };
    let text = text.replace(
        "gradient_accumulation_steps: 4",
        "gradient_accumulation_steps: 7",
    );
    std::fs::write(&job, text).unwrap();
    let audits = ["--audit-rate", "1", "--plan", plan];
    let here = ["--min-workers", "2", "--min-checkers", "1"];
    let honest = outcome(&pool.train(&job, &[&audits[..], &here].concat()));
    assert_eq!(honest.convictions, [], "{plan}");
    assert_eq!(
        honest.result["inconclusive"], 0,
        "{plan}: {}",
        honest.result
    );
    let audited = honest.result["audits"].as_u64().unwrap();
    assert!(audited >= 3 * 16, "{plan}: {audited} leaves re-run");
}
