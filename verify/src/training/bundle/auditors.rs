//! Auditors: which attempts each of them has settled, and how likely a lie was to escape it.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::auditor::{
    self, CHAIN_MAX, Enrolment, RATE_MAX, Reveal, enrolment_digest, reveal_digest,
};
use concord_proto::ledger::Finding;
use concord_proto::{Digest, JobSpec, Leaf, Signed, WorkerId};

use super::chain::StepLeaves;
use super::history::{Commit, GivenVerdict, History};

/// What an auditor that is honest shows.
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
    /// Attempts that may each hide a false leaf that it has drawn: those of the chain that it has
    /// not settled, and those that were voided after it had opened their secrets.
    pub unsettled: u32,
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

/// The auditors of a ledger, as it is read.
#[derive(Default)]
pub(super) struct KnownAuditors {
    all: BTreeMap<WorkerId, KnownAuditor>,
    /// The entries that committed attempts.
    committed: BTreeMap<u32, Digest>,
    /// Attempts that were committed and are void, each with how many attempts had started by then.
    voided: Vec<(u32, u32)>,
}

#[derive(Default)]
struct KnownAuditor {
    enrolments: Vec<KnownEnrolment>,
    /// Its last statement.
    last: Option<Digest>,
    /// Whether a statement of it was left out before: others may have known from then on what it
    /// would draw, and nothing that comes later counts.
    has_gap: bool,
}

struct KnownEnrolment {
    enrolment: Enrolment,
    digest: Digest,
    /// Secrets that were opened, by attempt.
    opened: BTreeMap<u32, Digest>,
}

/// A secret that is open.
#[derive(Clone, Copy)]
struct OpenSecret {
    secret: Digest,
    /// The attempt whose reveal has opened it: its own, or a later one.
    by: u32,
}

impl KnownEnrolment {
    /// The secrets that are open, by attempt.
    fn secrets(&self) -> BTreeMap<u32, OpenSecret> {
        let mut secrets = BTreeMap::new();
        let mut opened = self.opened.iter().rev().peekable();
        while let Some((&by, &secret)) = opened.next() {
            let end = opened.peek().map(|(earlier, _)| **earlier);
            let end = end.map_or(self.enrolment.from, |earlier| earlier + 1);
            let mut secret = secret;
            for attempt in (end..=by).rev() {
                if self.enrolment.index(attempt).is_some() {
                    secrets.insert(attempt, OpenSecret { secret, by });
                }
                secret = auditor::before(&secret);
            }
        }
        secrets
    }
}

fn require(holds: bool, reason: &str) -> Result<(), String> {
    match holds {
        true => Ok(()),
        false => Err(reason.to_string()),
    }
}

impl KnownAuditors {
    /// An auditor commits to secrets, with so many attempts started before. `fits` tells whether an
    /// enrolment is of this job and of this ledger's coordinator.
    pub(super) fn enrol(
        &mut self,
        signed: &Signed,
        attempts: u32,
        fits: impl Fn(&Enrolment) -> bool,
    ) -> Result<(), String> {
        let enrolment: Enrolment = signed.open().map_err(|error| error.to_string())?;
        require(fits(&enrolment), "it is for another job or coordinator")?;
        let is_early = enrolment.from >= attempts;
        require(is_early, "an attempt that it is for was started before")?;
        let is_bounded = enrolment.rate <= RATE_MAX && enrolment.length <= CHAIN_MAX;
        require(is_bounded, "its rate or its length is over the bound")?;
        let known = self.all.entry(signed.signer).or_default();
        known.has_gap |= enrolment.previous != known.last;
        let digest = enrolment_digest(signed);
        known.last = Some(digest);
        if known.has_gap {
            return Ok(());
        }
        // One chain at a time: of two for the same attempt the draw could be chosen.
        if let Some(last) = known.enrolments.last_mut() {
            let before = enrolment.from.saturating_sub(last.enrolment.from);
            last.enrolment.length = last.enrolment.length.min(before);
        }
        known.enrolments.push(KnownEnrolment {
            digest,
            enrolment,
            opened: BTreeMap::new(),
        });
        Ok(())
    }

    /// An auditor opens a secret.
    pub(super) fn reveal(&mut self, signed: &Signed) -> Result<(), String> {
        let reveal: Reveal = signed.open().map_err(|error| error.to_string())?;
        let known = self.all.get_mut(&signed.signer);
        let known = known.ok_or("its signer has committed to no secrets")?;
        known.has_gap |= known.last != Some(reveal.previous);
        known.last = Some(reveal_digest(signed));
        if known.has_gap {
            return Ok(());
        }
        let mut enrolments = known.enrolments.iter_mut().rev();
        let held = enrolments.find(|held| held.digest == reveal.enrolment);
        let held = held.ok_or("it names no enrolment of its signer")?;
        require(reveal.job == held.enrolment.job, "it is of another job")?;
        let committed = self.committed.get(&reveal.attempt);
        let is_after = committed == Some(&reveal.entry);
        require(
            is_after,
            "its attempt was not committed by the entry that it names",
        )?;
        let index = held.enrolment.index(reveal.attempt);
        let index = index.ok_or("its attempt is not one that it is enrolled for")?;
        let last = held.opened.last_key_value();
        let (earlier, digest) = match last {
            Some((attempt, secret)) => (held.enrolment.index(*attempt), *secret),
            None => (None, held.enrolment.top),
        };
        let fits = auditor::leads_to(&reveal.secret, index, earlier, &digest);
        require(fits, "its secret is not the one that was committed to")?;
        held.opened.insert(reveal.attempt, reveal.secret);
        Ok(())
    }

    /// An attempt is committed by this entry.
    pub(super) fn committed(&mut self, attempt: u32, entry: Digest) {
        self.committed.insert(attempt, entry);
    }

    /// A committed attempt is void, with so many attempts started by now.
    pub(super) fn void(&mut self, attempt: u32, started: u32) {
        self.voided.push((attempt, started));
    }

    /// What each auditor that was never convicted has settled.
    pub(super) fn report(
        &self,
        spec: &JobSpec,
        history: &History,
        steps: &[StepLeaves],
    ) -> Vec<AuditorReport> {
        let sound = self
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
            };
            self.count(&mut report, known, (spec, history, steps));
            report
        };
        sound.map(of).collect()
    }

    fn count(
        &self,
        report: &mut AuditorReport,
        known: &KnownAuditor,
        (spec, history, steps): (&JobSpec, &History, &[StepLeaves]),
    ) {
        let mut secrets: BTreeMap<u32, (OpenSecret, u64)> = BTreeMap::new();
        for held in &known.enrolments {
            let rate = held.enrolment.rate;
            let opened = held.secrets().into_iter();
            secrets.extend(opened.map(|(attempt, secret)| (attempt, (secret, rate))));
        }
        // What it had drawn of a void attempt nobody can settle. It had not drawn yet where its
        // secret was opened by an attempt that started later, as nothing was left out before.
        let is_lost = |(attempt, started): &&(u32, u32)| {
            let secret = secrets.get(attempt);
            secret.is_some_and(|(secret, _)| secret.by < *started)
        };
        report.unsettled = self.voided.iter().filter(is_lost).count() as u32;
        let agreed = agreed_by(history, &report.auditor);
        for ((step, leaves), commit) in (0_u32..).zip(steps).zip(&history.commits) {
            let decides = spec.decides(step);
            let at = (step, history.plan(commit).epoch);
            let secret = secrets.get(&commit.attempt.number);
            let counts = secret.and_then(|(secret, rate)| {
                self.settled(
                    (secret.secret, *rate),
                    commit,
                    (at, decides),
                    leaves,
                    &agreed,
                )
            });
            let (drawn, agreed) = counts.unwrap_or((0, 0));
            report.drawn += drawn;
            report.agreed += agreed;
            if !decides && leaves.iter().all(|(_, leaves)| !leaves.is_empty()) {
                let is_settled = counts.is_some() && drawn == agreed;
                report.steps += 1;
                report.unsettled += u32::from(!is_settled);
            }
        }
    }

    /// How many leaves of a step a secret draws, and how many of these the auditor found right.
    fn settled(
        &self,
        (secret, rate): (Digest, u64),
        commit: &Commit,
        ((step, epoch), decides): ((u32, u32), bool),
        leaves: &StepLeaves,
        agreed: &Agreed,
    ) -> Option<(u64, u64)> {
        let entry = self.committed.get(&commit.attempt.number)?;
        let (mut drawn, mut found) = (0, 0);
        for (worker, leaves) in leaves {
            let count = leaves.len() as u32;
            for index in auditor::drawn(&secret, entry, worker, rate, count, decides) {
                let leaf = Leaf::digest(&leaves[index as usize]);
                drawn += 1;
                found += u64::from(agreed.contains(&(step, epoch, *worker, leaf)));
            }
        }
        Some((drawn, found))
    }
}

/// Leaves by step, epoch, worker and digest.
type Agreed = BTreeSet<(u32, u32, WorkerId, Digest)>;

fn agreed_by(history: &History, auditor: &WorkerId) -> Agreed {
    let given = history.verdicts.iter();
    let agreeing =
        given.filter(|given| given.checker == *auditor && given.verdict.finding == Finding::Agrees);
    let place = |given: &GivenVerdict| {
        let verdict = &given.verdict;
        (verdict.step, verdict.epoch, verdict.worker, verdict.leaf)
    };
    agreeing.map(place).collect()
}
