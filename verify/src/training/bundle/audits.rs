//! What was found wrong: no dispute is open, and nothing rests on a worker that was found wrong.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::ledger::Finding;
use concord_proto::{Digest, Leaf, WorkerId};

use super::VerifyError;
use super::chain::StepLeaves;
use super::convictions::ShownConvictions;
use super::files::LEDGER;
use super::history::{GivenVerdict, History};
use crate::training::leaf_words;

/// Verdicts by step, epoch, worker and leaf; of a checker that the reader believes, for any epoch:
/// a leaf of one digest is the same work under every plan.
type VerdictsByLeaf<'a> = BTreeMap<(u32, Option<u32>, WorkerId, Digest), &'a GivenVerdict>;

/// Checks that no finding against a leaf of the chain is open, and that no claim of a convicted
/// worker counts.
pub(super) fn check(
    history: &History,
    shown: &ShownConvictions,
    steps: &[StepLeaves],
    pinned: &BTreeSet<WorkerId>,
) -> Result<(), VerifyError> {
    // What somebody found wrong counts until a conviction decides about that very leaf: else one
    // line would take back a dissent. That of a checker whom the reader believes counts in any
    // case, because a conviction rests on a re-run that nobody does here.
    let is_open = |given: &&GivenVerdict| {
        let differs = matches!(given.verdict.finding, Finding::Differs { .. });
        differs && (pinned.contains(&given.checker) || !shown.refutes(given))
    };
    let open = history.verdicts.iter().filter(is_open);
    let by_leaf: VerdictsByLeaf = open
        .map(|given| {
            let of = &given.verdict;
            let epoch = (!pinned.contains(&given.checker)).then_some(of.epoch);
            ((of.step, epoch, of.worker, of.leaf), given)
        })
        .collect();
    for ((step, leaves), commit) in (0_u32..).zip(steps).zip(&history.commits) {
        let epochs = [None, Some(history.plan(commit).epoch)];
        for (worker, leaves) in leaves {
            for leaf in leaves.iter().filter(|_| !by_leaf.is_empty()) {
                let of = |epoch| by_leaf.get(&(step, epoch, *worker, leaf.digest()));
                if let Some(open) = epochs.into_iter().find_map(of) {
                    return Err(dispute(open, leaf));
                }
            }
        }
    }
    check_convicts(history, shown, steps)
}

fn dispute(given: &GivenVerdict, leaf: &Leaf) -> VerifyError {
    let entry = given.entry;
    let statement = format!("entry {entry} (verdict of {})", given.checker.short());
    let (words, step) = (leaf_words(leaf), given.verdict.step);
    let worker = given.verdict.worker;
    let reason = format!(
        "it found another result than {} in the {words} of step {step}, and the step was not \
         voided",
        worker.short()
    );
    VerifyError::new(LEDGER, statement, reason).of(worker)
}

/// A worker of which a leaf of some step is wrong has no claim from that step on.
fn check_convicts(
    history: &History,
    shown: &ShownConvictions,
    steps: &[StepLeaves],
) -> Result<(), VerifyError> {
    for (&culprit, &offence) in &shown.wrong_from {
        let later = (0_u32..).zip(steps).skip(offence as usize);
        for (step, leaves) in later {
            if leaves.iter().any(|(worker, _)| *worker == culprit) {
                let entry = history.commits[step as usize].entry;
                let statement = format!("entry {entry} (step {step} committed)");
                let reason = format!("it rests on a worker found wrong in step {offence}");
                return Err(VerifyError::new(LEDGER, statement, reason).of(culprit));
            }
        }
    }
    Ok(())
}
