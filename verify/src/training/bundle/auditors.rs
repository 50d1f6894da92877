//! Auditors: which attempts each of them has settled, and how likely a lie was to escape it.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::auditor::{
    self, CHAIN_MAX, Enrolment, RATE_MAX, Reveal, enrolment_digest, reveal_digest,
};
use concord_proto::ledger::Finding;
use concord_proto::{Digest, JobSpec, Leaf, Signed, WorkerId};

use super::chain::StepLeaves;
use super::history::{Commit, History};

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
    /// Steps of the chain.
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
    all: BTreeMap<WorkerId, Vec<KnownEnrolment>>,
    /// The entries that committed attempts.
    committed: BTreeMap<u32, Digest>,
    /// Attempts of each auditor that were voided after it had opened their secrets.
    voided: BTreeMap<WorkerId, u32>,
}

struct KnownEnrolment {
    enrolment: Enrolment,
    digest: Digest,
    /// Secrets that were opened, by attempt.
    opened: BTreeMap<u32, Digest>,
    /// What the next reveal names; none behind a gap.
    last: Option<Digest>,
}

impl KnownEnrolment {
    /// The secret of an attempt, if it is open.
    fn secret(&self, attempt: u32) -> Option<Digest> {
        self.enrolment.index(attempt)?;
        let (&later, &secret) = self.opened.range(attempt..).next()?;
        Some((attempt..later).fold(secret, |secret, _| auditor::before(&secret)))
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
        let enrolments = self.all.entry(signed.signer).or_default();
        // One chain at a time: of two for the same attempt the draw could be chosen.
        if let Some(last) = enrolments.last_mut() {
            let from = enrolment.from;
            last.enrolment.length = last
                .enrolment
                .length
                .min(from.saturating_sub(last.enrolment.from));
        }
        enrolments.push(KnownEnrolment {
            digest: enrolment_digest(signed),
            enrolment,
            opened: BTreeMap::new(),
            last: Some(enrolment_digest(signed)),
        });
        Ok(())
    }

    /// An auditor opens a secret.
    pub(super) fn reveal(&mut self, signed: &Signed) -> Result<(), String> {
        let reveal: Reveal = signed.open().map_err(|error| error.to_string())?;
        let enrolments = self.all.get_mut(&signed.signer);
        let mut enrolments = enrolments.into_iter().flatten();
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
        let (known, digest) = match last {
            Some((attempt, secret)) => (held.enrolment.index(*attempt), *secret),
            None => (None, held.enrolment.top),
        };
        let fits = auditor::leads_to(&reveal.secret, index, known, &digest);
        require(fits, "its secret is not the one that was committed to")?;
        // A secret that it has opened elsewhere, or that was left out here: from then on others may
        // have known what it would draw. Nothing behind that is settled.
        held.last = held.last.filter(|last| *last == reveal.previous);
        if held.last.is_some() {
            held.opened.insert(reveal.attempt, reveal.secret);
            held.last = Some(reveal_digest(signed));
        }
        Ok(())
    }

    /// An attempt is committed by this entry.
    pub(super) fn committed(&mut self, attempt: u32, entry: Digest) {
        self.committed.insert(attempt, entry);
    }

    /// A committed attempt is void: what an auditor had drawn there may never be settled.
    pub(super) fn void(&mut self, attempt: u32) {
        for (auditor, enrolments) in &self.all {
            if enrolments.iter().any(|held| held.secret(attempt).is_some()) {
                *self.voided.entry(*auditor).or_default() += 1;
            }
        }
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
        let of = |(auditor, enrolments): (&WorkerId, &Vec<KnownEnrolment>)| {
            let agreed = agreed_by(history, auditor);
            let mut report = AuditorReport {
                auditor: *auditor,
                rate: enrolments.iter().map(|held| held.enrolment.rate).min()?,
                drawn: 0,
                agreed: 0,
                steps: steps.len() as u32,
                unsettled: self.voided.get(auditor).copied().unwrap_or(0),
            };
            for ((step, leaves), commit) in (0_u32..).zip(steps).zip(&history.commits) {
                let decides = spec.decides(step);
                let at = (step, history.plan(commit).epoch);
                let counts = self.settled(enrolments, commit, (at, decides), leaves, &agreed);
                let is_settled = counts.is_some_and(|(drawn, agreed)| drawn == agreed);
                let (drawn, agreed) = counts.unwrap_or((0, 0));
                report.drawn += drawn;
                report.agreed += agreed;
                report.unsettled += u32::from(!is_settled);
            }
            Some(report)
        };
        sound.filter_map(of).collect()
    }

    /// How many leaves of a step an auditor has drawn, and how many of these it found right; none
    /// where its secret is not open.
    fn settled(
        &self,
        enrolments: &[KnownEnrolment],
        commit: &Commit,
        ((step, epoch), decides): ((u32, u32), bool),
        leaves: &StepLeaves,
        agreed: &Agreed,
    ) -> Option<(u64, u64)> {
        let attempt = commit.attempt.number;
        let mut held = enrolments.iter();
        let (held, secret) = held.find_map(|held| Some((held, held.secret(attempt)?)))?;
        let entry = self.committed.get(&attempt)?;
        let (mut drawn, mut found) = (0, 0);
        for (worker, leaves) in leaves {
            let (rate, count) = (held.enrolment.rate, leaves.len() as u32);
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
    let place = |given: &super::history::GivenVerdict| {
        let verdict = &given.verdict;
        (verdict.step, verdict.epoch, verdict.worker, verdict.leaf)
    };
    agreeing.map(place).collect()
}
