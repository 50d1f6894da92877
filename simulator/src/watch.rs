//! Who looks on: what must hold after each event of a run, whatever happens in it. The core checks
//! itself (`Core::assert_invariants`), and the world what it is ordered; here stands what takes a
//! view of all of them. What does not hold ends the run with its reason.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::auditor::{Enrolment, Reveal, enrolment_digest};
use concord_proto::ledger::{Finding, LedgerEntry, LedgerEvent, Verdict, entry_digest};
use concord_proto::session::{ToCoordinator, ToWorker};
use concord_proto::{Claim, Digest, Domain, FirstHalf, JobId, Signed, WorkerId};

use super::reading::read;

/// What a run has shown so far.
#[derive(Default)]
pub struct Watch {
    /// Entries of the ledger that are persisted.
    durable: BTreeSet<Digest>,
    /// The attempts that were started, each with whether it is committed.
    attempts: Vec<bool>,
    /// What honest parties have signed, by what they may sign once.
    signed: BTreeMap<Once, Digest>,
    /// The last attempt whose secret an auditor has opened.
    opened: BTreeMap<(WorkerId, JobId), u32>,
    /// The leaves of each step as it was committed, by step and epoch.
    pub steps: BTreeMap<(u32, u32), Vec<SeenClaim>>,
    pub counts: WatchCounts,
}

/// A claim that was committed, as it looks to one who sees everything.
pub struct SeenClaim {
    pub worker: WorkerId,
    /// Each leaf, and whether it is right; none where its worker is gone.
    pub leaves: Vec<(Digest, Option<bool>)>,
}

/// How much there was of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Leaves that were re-run, and found right.
    pub agreed: u64,
    /// Findings against a leaf.
    pub accusations: u64,
    pub convictions: u64,
    pub attempts: u64,
    pub voids: u64,
    /// Secrets that were opened.
    pub reveals: u64,
}

/// Of what an honest party signs one statement alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Once {
    /// The first half of the claim for an attempt.
    FirstHalf(WorkerId, u32),
    /// The claim that follows it.
    Claim(WorkerId, Digest),
    /// An enrolment, which may be said again.
    Enrolment(WorkerId, Digest),
    /// The opened secret of an attempt.
    Reveal(WorkerId, JobId, u32),
    /// A verdict on a leaf that says whether it is right.
    Verdict(WorkerId, (u32, u32), WorkerId, Digest),
}

impl WatchCounts {
    pub fn add(&mut self, other: &Self) {
        self.agreed += other.agreed;
        self.accusations += other.accusations;
        self.convictions += other.convictions;
        self.attempts += other.attempts;
        self.voids += other.voids;
        self.reveals += other.reveals;
    }
}

impl Watch {
    fn sign(&mut self, once: Once, statement: Digest, what: &str) {
        let before = self.signed.insert(once, statement);
        let is_same = before.is_none_or(|before| before == statement);
        assert!(
            is_same,
            "an honest party signs {what} twice, with a difference"
        );
    }

    /// An honest party says something.
    pub fn said(&mut self, by: WorkerId, message: &ToCoordinator) {
        let digest = |signed: &Signed| Digest::of_value(Domain::Blob, signed);
        match message {
            ToCoordinator::Computed { first_half, .. } => {
                let half: FirstHalf = read(first_half);
                let once = Once::FirstHalf(by, half.attempt.number);
                self.sign(once, digest(first_half), "the first half of a claim");
            }
            ToCoordinator::Updated { claim, .. } => {
                let opened: Claim = read(claim);
                let once = Once::Claim(by, opened.first_half);
                self.sign(once, digest(claim), "a claim");
            }
            ToCoordinator::Verdict { verdict, .. } => {
                let opened: Verdict = read(verdict);
                if !matches!(opened.finding, Finding::Inconclusive { .. }) {
                    let at = (opened.step, opened.epoch);
                    let once = Once::Verdict(by, at, opened.worker, opened.leaf);
                    self.sign(once, digest(verdict), "a verdict");
                }
            }
            ToCoordinator::Revealed { reveal } => self.revealed(by, reveal),
            ToCoordinator::Enrolled { enrolment } => {
                let opened: Enrolment = read(enrolment);
                let once = Once::Enrolment(by, enrolment_digest(enrolment));
                let last = self.opened.get(&(by, opened.job));
                let is_early = last.is_none_or(|last| *last < opened.from);
                assert!(
                    is_early || self.signed.contains_key(&once),
                    "an auditor commits to secrets of an attempt whose secret is open"
                );
                self.sign(once, digest(enrolment), "an enrolment");
            }
            _ => {}
        }
    }

    /// A secret leaves its auditor: from now on it is known.
    fn revealed(&mut self, by: WorkerId, signed: &Signed) {
        let reveal: Reveal = read(signed);
        assert!(
            self.durable.contains(&reveal.entry),
            "a secret is opened before its attempt is in the ledger"
        );
        let once = Once::Reveal(by, reveal.job, reveal.attempt);
        self.sign(once, Digest::of_value(Domain::Blob, signed), "a reveal");
        let last = self.opened.entry((by, reveal.job)).or_default();
        *last = reveal.attempt.max(*last);
    }

    /// The coordinator tells somebody something.
    pub fn told(&self, message: &ToWorker) {
        let entry = match message {
            ToWorker::Step { started, .. } => started,
            ToWorker::Reveal { committed, .. } => committed,
            _ => return,
        };
        let is_durable = self.durable.contains(&entry_digest(entry));
        assert!(is_durable, "an entry is told before it is persisted");
    }

    /// An entry is persisted.
    pub fn entry(&mut self, signed: &Signed, is_honest: impl Fn(&WorkerId) -> bool) {
        let entry: LedgerEntry = read(signed);
        self.durable.insert(entry_digest(signed));
        match &entry.event {
            LedgerEvent::Started { attempt, .. } => {
                assert_eq!(
                    *attempt as usize,
                    self.attempts.len(),
                    "attempts rise by one"
                );
                self.attempts.push(false);
                self.counts.attempts += 1;
            }
            LedgerEvent::Committed { attempt, .. } => {
                let last = self.attempts.len().checked_sub(1);
                assert_eq!(
                    Some(*attempt as usize),
                    last,
                    "another attempt was started since"
                );
                let is_committed = &mut self.attempts[*attempt as usize];
                assert!(!*is_committed, "an attempt is committed twice");
                *is_committed = true;
            }
            LedgerEvent::Revealed { .. } => self.counts.reveals += 1,
            LedgerEvent::Judged { verdict } => self.judged(verdict, is_honest),
            LedgerEvent::Convicted { .. } => self.counts.convictions += 1,
            LedgerEvent::Voided { .. } => self.counts.voids += 1,
            _ => {}
        }
    }

    fn judged(&mut self, signed: &Signed, is_honest: impl Fn(&WorkerId) -> bool) {
        let verdict: Verdict = read(signed);
        match verdict.finding {
            Finding::Agrees => {
                self.counts.agreed += 1;
                let is_wrong = self.is_wrong((verdict.step, verdict.epoch), &verdict);
                let is_fooled = is_wrong && is_honest(&signed.signer);
                assert!(!is_fooled, "an honest auditor finds a wrong leaf right");
            }
            Finding::Inconclusive { .. } => panic!("a verdict that says nothing is in the ledger"),
            Finding::Differs { .. } => {
                self.counts.accusations += 1;
                let are_honest = is_honest(&signed.signer) && is_honest(&verdict.worker);
                assert!(!are_honest, "an honest auditor accuses an honest worker");
            }
        }
    }

    /// Whether the leaf that a verdict is about is known to be wrong.
    fn is_wrong(&self, at: (u32, u32), verdict: &Verdict) -> bool {
        let claims = self.steps.get(&at).into_iter().flatten();
        let mut leaves = claims
            .filter(|claim| claim.worker == verdict.worker)
            .flat_map(|claim| &claim.leaves);
        leaves.any(|leaf| *leaf == (verdict.leaf, Some(false)))
    }

    /// A claim becomes final.
    pub fn step(&mut self, at: (u32, u32), claim: SeenClaim) {
        self.steps.entry(at).or_default().push(claim);
    }
}
