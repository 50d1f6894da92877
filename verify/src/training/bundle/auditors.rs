//! What auditors have said in a ledger: what they have committed to, and which secrets are open.

use std::collections::BTreeMap;

use concord_proto::auditor::{
    self, CHAIN_MAX, Enrolment, RATE_MAX, Reveal, enrolment_digest, reveal_digest,
};
use concord_proto::{Digest, Signed, WorkerId};

/// The auditors of a ledger, as it is read.
#[derive(Default)]
pub(super) struct KnownAuditors {
    pub(super) all: BTreeMap<WorkerId, KnownAuditor>,
    /// The entries that committed attempts.
    pub(super) committed: BTreeMap<u32, Digest>,
    pub(super) voided: Vec<VoidAttempt>,
}

/// An attempt that was committed and is void.
pub(super) struct VoidAttempt {
    pub(super) attempt: u32,
    /// How many attempts had started when it became void.
    pub(super) started: u32,
    /// Digests of its claims, in the plan's order.
    pub(super) claims: Vec<Digest>,
}

/// What one auditor has said.
#[derive(Default)]
pub(super) struct KnownAuditor {
    pub(super) enrolments: Vec<KnownEnrolment>,
    /// Its last reveal.
    last: Option<Digest>,
    /// Whether a reveal of it was left out before: others may have known from then on what it
    /// would draw, and nothing that comes later counts.
    has_gap: bool,
}

/// What it has committed to once.
pub(super) struct KnownEnrolment {
    pub(super) enrolment: Enrolment,
    digest: Digest,
    /// Secrets that were opened, by attempt.
    opened: BTreeMap<u32, Digest>,
}

/// A secret that is open.
#[derive(Clone, Copy)]
pub(super) struct OpenSecret {
    pub(super) secret: Digest,
    /// The attempt whose reveal has opened it: its own, or a later one.
    pub(super) by: u32,
}

impl KnownEnrolment {
    /// The secrets that are open, by attempt.
    pub(super) fn secrets(&self) -> BTreeMap<u32, OpenSecret> {
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
        let digest = enrolment_digest(signed);
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
        known.has_gap |= known.last != reveal.previous;
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
    pub(super) fn void(&mut self, attempt: u32, started: u32, claims: Vec<Digest>) {
        self.voided.push(VoidAttempt {
            attempt,
            started,
            claims,
        });
    }
}
