//! What a verified bundle shows, for people and scripts.

use concord_proto::{Course, Digest, JobId, PublicKey, WorkerId};

use super::Bundle;
use super::audits::AuditCounts;
use super::chain::StepLeaves;
use super::convictions::ShownConvictions;
use super::history::History;
use super::settled::{self, AuditorReport};

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
    /// Evaluations that decide which state is the result or where the job ends, and those of them
    /// of which not every leaf was re-run: a false loss there may have decided.
    pub deciding: u32,
    pub deciding_unseen: u32,
    /// Updates that its patience left out.
    pub steps_left: u32,
    /// Digest of the last step record: the job's hash.
    pub record: Digest,
    /// The key that signed the ledger. The bundle cannot show that this is the coordinator you
    /// trust.
    pub coordinator: PublicKey,
    /// Who has a claim in the chain, sorted.
    pub workers: Vec<WorkerId>,
    /// Who gave a verdict that counts, sorted.
    pub checkers: Vec<WorkerId>,
    /// Leaves of all claims of the chain.
    pub leaves: u64,
    /// Leaves that were drawn.
    pub audits_drawn: u64,
    /// Drawn leaves that a checker re-ran with the same result.
    pub audits_agreed: u64,
    /// Those of them whose checker the reader believes: all, unless checkers were pinned.
    pub audits_counted: u64,
    /// Drawn leaves that could not be re-run.
    pub audits_inconclusive: u64,
    /// Who was convicted, sorted.
    pub convicted: Vec<WorkerId>,
    /// Convictions that rest on a re-run, which was not done here: their parts fit each other, and
    /// the party has signed what it is blamed for.
    pub convictions_on_rerun: u32,
    /// Convictions for the breach of a rule, which rest on the state that the step began with: for
    /// it there is the word of the coordinator.
    pub convictions_on_state: u32,
    /// The lowest probability with which a leaf was drawn, 0 to 1.
    pub audit_rate_min: f64,
    /// The probability that one false leaf in each step would have been found out, 0 to 1, if the
    /// checkers whose audits count are honest. Steps with a drawn leaf that none of them re-ran add
    /// nothing to it, because that leaf may have been the false one; nor do steps in which a worker
    /// has no leaf; nor evaluations that decide, because there is no chance in which of their
    /// leaves are drawn.
    pub detection: f64,
    /// The steps that it counts.
    pub detection_steps: u32,
    /// What each auditor that draws by secrets of its own shows, if it is honest, by rising key.
    pub auditors: Vec<AuditorReport>,
}

impl Report {
    /// Whether nobody whose word counts has re-run a leaf, because none was drawn or none of the
    /// drawn ones could be. Then signatures, chain and coverage hold, and nothing more.
    pub fn is_unaudited(&self) -> bool {
        self.audits_counted == 0
    }
}

pub(super) fn of(
    bundle: &Bundle,
    history: &History,
    steps: &[StepLeaves],
    (audits, shown): (&AuditCounts, &ShownConvictions),
) -> Report {
    let mut workers: Vec<WorkerId> = steps.iter().flatten().map(|(worker, _)| *worker).collect();
    workers.sort_unstable();
    workers.dedup();
    let sound = |id: &WorkerId| !history.convicted.contains(id);
    let givers = history.verdicts.iter().map(|given| given.checker);
    let mut checkers: Vec<WorkerId> = givers.filter(sound).collect();
    checkers.sort_unstable();
    checkers.dedup();
    let rates = history.commits.iter().flat_map(|commit| &commit.rates);
    let lowest = rates.map(|rate| rate.rate).min().unwrap_or(0);
    let audit_rate_min = lowest as f64 / (1_u64 << 32) as f64;
    let chance = &audits.by_chance;
    let share_agreed = match chance.drawn {
        0 => 1.0,
        drawn => chance.counted as f64 / drawn as f64,
    };
    let (spec, chain_steps) = (&bundle.spec, bundle.records.len() as u32);
    let updates = spec.updates_before(chain_steps);
    let course = Course::of(spec, bundle.records.iter().map(|record| record.loss));
    let best = course.best();
    let best = best.map(|(step, loss)| (spec.updates_before(step), loss.get()));
    let seen_steps = chain_steps.saturating_sub(chance.blind_steps + audits.deciding);
    let missed = (0..seen_steps).fold(1.0, |missed, _| {
        missed * (1.0 - audit_rate_min * share_agreed)
    });
    Report {
        job: history.job,
        steps: updates,
        evaluations: chain_steps - updates,
        best,
        keeps_best: course.result_steps(spec) < chain_steps,
        deciding: audits.deciding,
        deciding_unseen: audits.deciding_unseen,
        steps_left: spec.steps - updates,
        record: history.commits.last().map(|c| c.record).unwrap_or_default(),
        coordinator: history.coordinator,
        workers,
        checkers,
        leaves: steps
            .iter()
            .flatten()
            .map(|(_, leaves)| leaves.len() as u64)
            .sum(),
        audits_drawn: audits.drawn,
        audits_agreed: audits.agreed,
        audits_counted: audits.counted,
        audits_inconclusive: audits.inconclusive,
        convicted: history.convicted.iter().copied().collect(),
        convictions_on_rerun: shown.on_rerun,
        convictions_on_state: shown.on_state,
        audit_rate_min,
        detection: 1.0 - missed,
        detection_steps: seen_steps,
        auditors: settled::report(spec, history, steps),
    }
}
