//! A hundred honest jobs on a pool of unlike machines, every piece of their work re-run: nobody is
//! ever accused.

mod pool;

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
        let all = ["--audit-rate", "1", "--audit-rate-new", "1"];
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
