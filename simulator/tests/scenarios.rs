//! Runs that are drawn from seeds, as `concord simulate` runs them: with faults of every kind, and
//! with one liar.
//!
//! `CONCORD_SEEDS=A..B` runs other seeds than those that are run by default.

mod budget;

use budget::seeds;
use concord_simulator::scenario::{ExpectedRecords, FaultKind, ScenarioCounts};
use concord_simulator::seeds::run_seed;

fn run_all(seeds: std::ops::Range<u64>, has_liar: bool) -> ScenarioCounts {
    let (mut counts, mut expected) = (ScenarioCounts::default(), ExpectedRecords::default());
    let mut failures = Vec::new();
    for seed in seeds {
        match run_seed(seed, has_liar, &mut expected) {
            Ok(run) => counts.add(&run),
            Err(failed) => failures.push(format!(
                "seed {}: {}\n  {}",
                failed.seed, failed.reason, failed.scenario
            )),
        }
    }
    println!("{counts:#?}");
    let count = failures.len();
    failures.truncate(10);
    assert!(
        count == 0,
        "{count} failures, such as\n{}",
        failures.join("\n")
    );
    counts
}

#[test]
fn honest_pools_accuse_nobody_whatever_fails() {
    let counts = run_all(seeds(0..200), false);
    assert_eq!(counts.completed, counts.jobs, "one record for each job");
    let watched = counts.watched;
    assert_eq!((watched.accusations, watched.convictions), (0, 0));
    let is_there = |kind: &FaultKind| counts.faults.contains_key(kind);
    assert!(FaultKind::ALL.iter().all(is_there), "{:?}", counts.faults);
}

#[test]
fn one_liar_changes_no_record_that_was_looked_at() {
    let counts = run_all(seeds(0..200), true);
    assert!(
        counts.caught > 0 && counts.lied > counts.caught,
        "{counts:?}"
    );
}
