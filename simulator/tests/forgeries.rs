//! Histories that a coordinator makes up: each is refuted, or counts what it hides as unsettled.
//!
//! `CONCORD_SEEDS=A..B` runs other seeds than those that are run by default.

mod budget;

use budget::seeds;
use concord_proto::auditor::RATE_MAX;
use concord_simulator::forger::{ForgedCounts, Shown, forge};
use concord_simulator::interval::clopper_pearson;
use concord_simulator::seeds::caught;

const RATE: u64 = RATE_MAX / 4;

#[test]
fn no_history_that_is_made_up_shows_more_than_is_true() {
    let (mut counts, mut failures) = (ForgedCounts::default(), Vec::new());
    for seed in seeds(0..400) {
        match caught(|| forge(seed, RATE)) {
            Ok(run) => counts.add(&run),
            Err(reason) => failures.push(format!("seed {seed}: {reason}")),
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
    let all = [
        Shown::Found,
        Shown::Refuted,
        Shown::Unsettled,
        Shown::Settled,
    ];
    let has_all = all.iter().all(|shown| counts.shown.contains_key(shown));
    assert!(has_all && counts.hidden > 0, "{counts:?}");
    for (unsettled, accepted, printed) in counts.rows(RATE) {
        let (low, _) = clopper_pearson(accepted, counts.all_false, 0.999);
        assert!(
            low <= printed,
            "{accepted} with {unsettled} unsettled: {counts:?}"
        );
    }
}
