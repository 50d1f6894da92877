//! A coordinator in one hand with all workers, and one honest auditor: what a proof prints is never
//! above the share of jobs in which the lie was seen.
//!
//! `CONCORD_SEEDS=A..B` runs other seeds than those that are run by default.

mod budget;

use budget::seeds;
use concord_proto::auditor::RATE_MAX;
use concord_simulator::forger::{CollusionCounts, Ruse, collude};
use concord_simulator::interval::clopper_pearson;

const RATE: u64 = RATE_MAX / 4;
const STEPS: u32 = 6;

fn counted(ruse: Ruse, lies: u32) -> CollusionCounts {
    let mut counts = CollusionCounts::default();
    for seed in seeds(0..150) {
        counts.add(&collude(seed, ruse, (STEPS, lies), RATE));
    }
    counts
}

#[test]
fn no_ruse_makes_a_proof_print_more_than_is_true() {
    for (ruse, lies) in Ruse::ALL
        .into_iter()
        .flat_map(|ruse| [(ruse, 1), (ruse, STEPS)])
    {
        for row in counted(ruse, lies).rows(RATE, lies) {
            let (low, _) = clopper_pearson(row.unseen, row.jobs, 0.999);
            assert!(low <= row.printed, "{ruse:?}, {lies} lies: {row:?}");
        }
    }
}

/// Where nothing is hidden, the printed chance is the true one, neither more nor less.
#[test]
fn an_honest_ledger_prints_the_chance_that_a_lie_is_seen() {
    for lies in [1, 3, STEPS] {
        let row = counted(Ruse::Nothing, lies).rows(RATE, lies)[0];
        let (low, high) = clopper_pearson(row.unseen, row.jobs, 0.999);
        let is_true = (low..=high).contains(&row.printed);
        assert!(is_true, "{lies} lies: {row:?} is not within {low}..{high}");
    }
}
