//! What a verified bundle shows, for people and scripts.

use concord_proto::{Course, Digest, JobId, PublicKey, WorkerId};

use super::Bundle;
use super::chain::StepLeaves;
use super::convictions::ShownConvictions;
use super::history::History;
use super::settled::AuditorReport;

/// What a verified bundle shows. The probabilities are for people and enter no digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub job: JobId,
    /// Its updates, all of them committed.
    pub steps: u32,
    /// Its evaluations.
    pub evaluations: u32,
    /// Updates before the evaluation with the lowest loss, and that loss.
    pub best: Option<(u32, f32)>,
    /// Whether the state of that evaluation is the result, and not the last one.
    pub keeps_best: bool,
    /// Evaluations that decide which state is the result or where the job ends.
    pub deciding: u32,
    /// Updates that its patience left out.
    pub steps_left: u32,
    /// Digest of the last step record: the job's hash.
    pub record: Digest,
    /// The key that signed the ledger. The bundle cannot show that this is the coordinator you
    /// trust.
    pub coordinator: PublicKey,
    /// Who has a claim in the chain, sorted.
    pub workers: Vec<WorkerId>,
    /// Leaves of all claims of the chain.
    pub leaves: u64,
    /// Leaves that auditors have drawn, each as often as it was drawn.
    pub audits_drawn: u64,
    /// Those of them that the auditor found right.
    pub audits_agreed: u64,
    /// Who was convicted, sorted.
    pub convicted: Vec<WorkerId>,
    /// Convictions that rest on a re-run, which was not done here: their parts fit each other, and
    /// the party has signed what it is blamed for.
    pub convictions_on_rerun: u32,
    /// Convictions for the breach of a rule, which rest on the state that the step began with: for
    /// it there is the word of the coordinator.
    pub convictions_on_state: u32,
    /// What each checker and auditor shows, if it is honest, by rising key.
    pub auditors: Vec<AuditorReport>,
}

pub(super) fn of(
    bundle: &Bundle,
    history: &History,
    steps: &[StepLeaves],
    (shown, auditors): (&ShownConvictions, Vec<AuditorReport>),
) -> Report {
    let mut workers: Vec<WorkerId> = steps.iter().flatten().map(|(worker, _)| *worker).collect();
    workers.sort_unstable();
    workers.dedup();
    let (spec, chain_steps) = (&bundle.spec, bundle.records.len() as u32);
    let updates = spec.updates_before(chain_steps);
    let course = Course::of(spec, bundle.records.iter().map(|record| record.loss));
    let best = course.best();
    let best = best.map(|(step, loss)| (spec.updates_before(step), loss.get()));
    let leaves = steps.iter().flatten();
    let deciding = (0..chain_steps).filter(|&step| spec.decides(step));
    Report {
        job: history.job,
        steps: updates,
        evaluations: chain_steps - updates,
        best,
        keeps_best: course.result_steps(spec) < chain_steps,
        deciding: deciding.count() as u32,
        steps_left: spec.steps - updates,
        record: history.commits.last().map(|c| c.record).unwrap_or_default(),
        coordinator: history.coordinator,
        workers,
        leaves: leaves.map(|(_, leaves)| leaves.len() as u64).sum(),
        audits_drawn: auditors.iter().map(|own| own.drawn).sum(),
        audits_agreed: auditors.iter().map(|own| own.agreed).sum(),
        convicted: history.convicted.iter().copied().collect(),
        convictions_on_rerun: shown.on_rerun,
        convictions_on_state: shown.on_state,
        auditors,
    }
}
