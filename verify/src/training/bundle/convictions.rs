//! The convictions of a ledger: whether each shows what it says.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::WorkerId;

use super::files::LEDGER;
use super::history::{GivenVerdict, History, WrittenConviction};
use super::{Bundle, VerifyError};
use crate::training::conviction::{ConvictionRules, DecidedVerdict, Shown, check_conviction};

/// What the convictions of a ledger show together.
#[derive(Debug, Default)]
pub(super) struct ShownConvictions {
    /// Verdicts that are false.
    decided: BTreeSet<DecidedVerdict>,
    /// From which step on the claims of a worker are not trusted.
    pub(super) wrong_from: BTreeMap<WorkerId, u32>,
    /// How many rest on a re-run, which nobody does here.
    pub(super) on_rerun: u32,
    /// How many rest on the state that a step began with, as the coordinator names it.
    pub(super) on_state: u32,
}

impl ShownConvictions {
    /// Whether a conviction decides that a verdict is false.
    pub(super) fn refutes(&self, given: &GivenVerdict) -> bool {
        let verdict = &given.verdict;
        self.decided.contains(&DecidedVerdict {
            checker: given.checker,
            step: verdict.step,
            epoch: verdict.epoch,
            worker: verdict.worker,
            leaf: verdict.leaf,
        })
    }
}

/// Checks every conviction.
pub(super) fn check(bundle: &Bundle, history: &History) -> Result<ShownConvictions, VerifyError> {
    let rules = ConvictionRules {
        spec: &bundle.spec,
        job: history.job,
        data: &bundle.data,
        plans: &history.plans,
        attempts: &history.attempts,
    };
    let mut all = ShownConvictions::default();
    for written in &history.convictions {
        let WrittenConviction {
            entry,
            culprit,
            offence,
            conviction,
        } = written;
        let shown = check_conviction(&rules, *culprit, *offence, conviction).map_err(|why| {
            let statement = format!("entry {entry} ({} convicted)", culprit.short());
            let reason = format!(
                "it does not show a {} by {}: {why}",
                offence.as_str(),
                culprit.short()
            );
            VerifyError::new(LEDGER, statement, reason).of(history.coordinator)
        })?;
        all.on_rerun += u32::from(shown.rests_on_rerun());
        match shown {
            Shown::WrongFrom(step) => {
                let first = all.wrong_from.entry(*culprit).or_insert(step);
                *first = step.min(*first);
            }
            Shown::FalseVerdict(verdict) => drop(all.decided.insert(verdict)),
            Shown::BrokenRule => all.on_state += 1,
            Shown::Equivocation => {}
        }
    }
    Ok(all)
}
