//! Which attempts each auditor has settled, and how likely a lie was to escape it.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::ledger::Finding;
use concord_proto::{Digest, JobSpec, Leaf, WorkerId, auditor};

use super::auditors::{KnownAuditor, OpenSecret, VoidAttempt};
use super::chain::StepLeaves;
use super::history::{GivenVerdict, History};
use super::voided::VoidLeaves;

/// What an auditor that is honest shows: a checker of the pool, or one that the job names.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditorReport {
    pub auditor: WorkerId,
    /// The lowest probability with which it drew a leaf, `p * 2^32`.
    pub rate: u64,
    /// Leaves that its secrets have drawn.
    pub drawn: u64,
    /// Those of them that it found right.
    pub agreed: u64,
    /// Steps of the chain in which every worker has a leaf, and chance decides what is drawn: no
    /// others are counted.
    pub steps: u32,
    /// Attempts that may each hide a false leaf that it has drawn: those that it has not settled,
    /// of the chain, and of those that were voided after it had opened their secrets.
    pub unsettled: u32,
    /// Evaluations that decide about the result of which it has not found every leaf right.
    pub deciding_unseen: u32,
}

impl AuditorReport {
    /// The probability that one false leaf in each of so many steps would have been seen.
    pub fn detection(&self, lies: u32) -> f64 {
        1.0 - auditor::escape(self.rate, lies.into(), self.unsettled.into())
    }

    /// From how many false steps on they are seen with 99 %, if the job has so many.
    pub fn nearly_certain(&self) -> Option<u32> {
        let is_seen = |lies: &u32| self.detection(*lies) >= 0.99;
        // It rises with the number of lies.
        let (mut low, mut high) = (0, self.steps);
        if !is_seen(&high) {
            return None;
        }
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match is_seen(&middle) {
                true => high = middle,
                false => low = middle,
            }
        }
        Some(high)
    }
}

/// What each auditor that was never convicted has settled.
pub(super) fn report(
    spec: &JobSpec,
    history: &History,
    leaves: (&[StepLeaves], &VoidLeaves),
) -> Vec<AuditorReport> {
    let sound = history
        .auditors
        .all
        .iter()
        .filter(|(auditor, _)| !history.convicted.contains(auditor));
    let of = |(auditor, known): (&WorkerId, &KnownAuditor)| {
        let rates = known.enrolments.iter().map(|held| held.enrolment.rate);
        let mut report = AuditorReport {
            auditor: *auditor,
            rate: rates.min().unwrap_or(0),
            drawn: 0,
            agreed: 0,
            steps: 0,
            unsettled: 0,
            deciding_unseen: 0,
        };
        count(&mut report, known, (spec, history, leaves));
        report
    };
    sound.map(of).collect()
}

fn count(
    report: &mut AuditorReport,
    known: &KnownAuditor,
    (spec, history, (steps, void_leaves)): (&JobSpec, &History, (&[StepLeaves], &VoidLeaves)),
) {
    let mut secrets: BTreeMap<u32, (OpenSecret, u64)> = BTreeMap::new();
    for held in &known.enrolments {
        let rate = held.enrolment.rate;
        let opened = held.secrets().into_iter();
        secrets.extend(opened.map(|(attempt, secret)| (attempt, (secret, rate))));
    }
    let agreed = agreed_by(history, &report.auditor);
    let hides = |void: &&VoidAttempt| {
        let Some((secret, rate)) = secrets.get(&void.attempt) else {
            return false;
        };
        // It had not drawn yet where its secret was opened by an attempt that started later, as
        // nothing was left out before. Attempts 7 and 8 were committed, 7 is void, and the secret
        // of 8 opens that of 7: if 8 had started before 7 was void, whoever voided it may have
        // known what 7 would draw.
        if secret.by >= void.started {
            return false;
        }
        let entry = history.auditors.committed.get(&void.attempt);
        let Some((entry, leaves)) = entry.zip(void_leaves.get(&void.attempt)) else {
            return true;
        };
        // One that was hit counts, also where its worker was convicted: else a coordinator that has
        // workers of its own would do each step again, with a lie and another key, until no lie of
        // it is drawn.
        let of = (void.attempt, false);
        let (drawn, right) = settled((secret.secret, *rate), entry, of, leaves, &agreed);
        drawn != right
    };
    report.unsettled = history.auditors.voided.iter().filter(hides).count() as u32;
    for ((step, leaves), commit) in (0_u32..).zip(steps).zip(&history.commits) {
        let decides = spec.decides(step);
        let attempt = commit.attempt.number;
        let secret = secrets.get(&attempt);
        let entry = history.auditors.committed.get(&attempt);
        let counts = secret.and_then(|(secret, rate)| {
            let secret = (secret.secret, *rate);
            Some(settled(secret, entry?, (attempt, decides), leaves, &agreed))
        });
        let (drawn, agreed) = counts.unwrap_or((0, 0));
        report.drawn += drawn;
        report.agreed += agreed;
        let is_settled = counts.is_some() && drawn == agreed;
        if !decides && leaves.iter().all(|(_, leaves)| !leaves.is_empty()) {
            report.steps += 1;
            report.unsettled += u32::from(!is_settled);
        }
        report.deciding_unseen += u32::from(decides && !is_settled);
    }
}

/// How many leaves of a step a secret draws, and how many of these the auditor found right.
fn settled(
    (secret, rate): (Digest, u64),
    entry: &Digest,
    (attempt, decides): (u32, bool),
    leaves: &StepLeaves,
    agreed: &Agreed,
) -> (u64, u64) {
    let (mut drawn, mut found) = (0, 0);
    for (worker, leaves) in leaves {
        let count = leaves.len() as u32;
        for index in auditor::drawn(&secret, entry, worker, rate, count, decides) {
            let leaf = Leaf::digest(&leaves[index as usize]);
            drawn += 1;
            found += u64::from(agreed.contains(&(attempt, *worker, index, leaf)));
        }
    }
    (drawn, found)
}

/// Leaves by attempt, worker, place and digest.
type Agreed = BTreeSet<(u32, WorkerId, u32, Digest)>;

fn agreed_by(history: &History, auditor: &WorkerId) -> Agreed {
    let given = history.verdicts.iter();
    let agreeing =
        given.filter(|given| given.checker == *auditor && given.verdict.finding == Finding::Agrees);
    let place = |given: &GivenVerdict| {
        let verdict = &given.verdict;
        (verdict.attempt, verdict.worker, verdict.index, verdict.leaf)
    };
    agreeing.map(place).collect()
}
