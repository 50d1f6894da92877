//! What parties keep of a ledger that they were shown, and of what they have said: a proof with
//! another history is refuted by it.

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::ledger::{Finding, LedgerEntry, LedgerEvent, Verdict, entry_digest};
use concord_proto::{Conviction, JobId, Leaf, Signed};

use super::bundle::Bundle;
use super::shape::leaf_words;

/// What one party keeps of a job at one coordinator.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeptHead {
    pub job: JobId,
    /// The newest entry of the ledger that it was shown, which binds all entries before.
    pub head: Signed,
    /// Its own [`Verdict`]s that found a leaf wrong.
    pub findings: Vec<Signed>,
}

/// The most findings that one party keeps of a job.
pub const FINDINGS_MAX: usize = 64;

/// What comes of holding a kept head to a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadMatch {
    /// The ledger has the entry, of this number, and all findings that are of its chain.
    Same { number: u64 },
    /// It is of another job.
    OtherJob,
    /// It is of the same job at another coordinator, which does it by itself.
    OtherCoordinator,
    /// It is no entry, or the coordinator has not signed it: it shows nothing.
    NoHead,
}

/// Holds what was kept to a proof whose ledger was checked.
///
/// # Errors
/// A sentence that says what the proof lacks, or has otherwise than it was shown.
pub fn compare(bundle: &Bundle, kept: &KeptHead) -> Result<HeadMatch, String> {
    if kept.job != bundle.spec.id() {
        return Ok(HeadMatch::OtherJob);
    }
    let is_of_ledger = |entry: &Signed| entry.signer == kept.head.signer;
    if !bundle.ledger.first().is_some_and(is_of_ledger) {
        return Ok(HeadMatch::OtherCoordinator);
    }
    let Ok(entry) = kept.head.open::<LedgerEntry>() else {
        return Ok(HeadMatch::NoHead);
    };
    let place = usize::try_from(entry.number).ok();
    let number = entry.number;
    match place.and_then(|place| bundle.ledger.get(place)) {
        None => Err(format!(
            "the coordinator has shown entry {number} of the ledger, and this one has only {}",
            bundle.ledger.len()
        )),
        Some(here) if entry_digest(here) != entry_digest(&kept.head) => Err(format!(
            "the coordinator has signed two entries with number {number}: the one of this ledger, \
             and the one that it has shown"
        )),
        Some(_) => match kept.findings.iter().find_map(|one| lacks(bundle, one)) {
            Some(why) => Err(why),
            None => Ok(HeadMatch::Same { number }),
        },
    }
}

/// What a ledger lacks that does not have this finding, although it is about a leaf of the chain.
/// A finding counts that a checker of this ledger has signed, and that no conviction holds.
fn lacks(bundle: &Bundle, finding: &Signed) -> Option<String> {
    let verdict: Verdict = finding.open().ok()?;
    let is_finding = matches!(verdict.finding, Finding::Differs { .. });
    let leaf = leaf_of(bundle, &verdict).filter(|_| is_finding)?;
    let (mut is_checker, mut is_there) = (false, false);
    for entry in &bundle.ledger {
        let Ok(entry) = entry.open::<LedgerEntry>() else {
            continue;
        };
        match entry.event {
            LedgerEvent::Enrolled {
                worker, checker, ..
            } => is_checker |= checker && worker == finding.signer,
            LedgerEvent::Judged { verdict } => is_there |= verdict == *finding,
            LedgerEvent::Convicted { conviction, .. } => {
                is_there |= matches!(
                    &*conviction,
                    Conviction::FalseVerdict { verdict, .. } if verdict == finding
                );
            }
            _ => {}
        }
    }
    (is_checker && !is_there).then(|| {
        format!(
            "the ledger lacks what {} found: {} by {} in step {} of the chain is not what its \
             inputs give",
            finding.signer.short(),
            leaf_words(leaf),
            verdict.worker.short(),
            verdict.step
        )
    })
}

/// The leaf of the chain that a verdict is about. One of an attempt that is void is of no chain.
fn leaf_of<'a>(bundle: &'a Bundle, verdict: &Verdict) -> Option<&'a Leaf> {
    let step = bundle.claims.get(verdict.step as usize)?;
    let mut claims = step.claims.iter();
    let claim = claims.find(|claim| claim.claim.signer == verdict.worker)?;
    let leaf = claim.leaves.get(verdict.index as usize)?;
    (verdict.job == bundle.spec.id() && leaf.digest() == verdict.leaf).then_some(leaf)
}
