//! One who sees everything: which leaves are wrong, and which secrets were to be opened. What a
//! proof shows is compared with that.

use std::collections::BTreeMap;

use concord_proto::auditor::{self, Enrolment, SecretChain};
use concord_proto::ledger::{LedgerEntry, LedgerEvent, entry_digest};
use concord_proto::{Digest, Signed, WorkerId};
use concord_verify::training::bundle::Bundle;

use super::auditor::chain_of;
use super::reading::read;
use super::watch::SeenClaim;

/// The claims of each step as it was committed, by step and epoch.
pub type SeenSteps = BTreeMap<(u32, u32), Vec<SeenClaim>>;

/// A step of the chain.
struct ChainStep {
    attempt: u32,
    at: (u32, u32),
    entry: Digest,
}

/// An auditor makes no more chains for one job.
const CHAINS_MAX: u64 = 64;

fn entries(bundle: &Bundle) -> impl Iterator<Item = (LedgerEvent, &Signed)> {
    let ledger = bundle.ledger.iter();
    ledger.map(|signed| (read::<LedgerEntry>(signed).event, signed))
}

/// The steps of the chain as they were committed last.
fn chain(bundle: &Bundle) -> Vec<ChainStep> {
    let mut chain: Vec<ChainStep> = Vec::new();
    for (event, signed) in entries(bundle) {
        match event {
            LedgerEvent::Committed {
                attempt,
                step,
                epoch,
                ..
            } => chain.push(ChainStep {
                attempt,
                at: (step, epoch),
                entry: entry_digest(signed),
            }),
            LedgerEvent::Voided { from_step } => chain.truncate(from_step as usize),
            _ => {}
        }
    }
    chain
}

/// What an auditor has committed to, with its secrets.
fn enrolments(bundle: &Bundle, of: &WorkerId, first: u64) -> Vec<(Enrolment, SecretChain)> {
    let mut held = Vec::new();
    for (event, _) in entries(bundle) {
        let LedgerEvent::Auditing { enrolment } = event else {
            continue;
        };
        if enrolment.signer != *of {
            continue;
        }
        let opened: Enrolment = read(&enrolment);
        let mut chains =
            (first..first + CHAINS_MAX).map(|number| chain_of(of, number, opened.length));
        if let Some(chain) = chains.find(|chain| chain.top() == opened.top) {
            held.push((opened, chain));
        }
    }
    held
}

fn wrong(claim: &SeenClaim, index: u32) -> bool {
    let leaf = claim.leaves.get(index as usize);
    leaf.is_some_and(|(_, is_right)| *is_right == Some(false))
}

/// Whether a leaf of the chain is wrong.
pub fn has_wrong_leaf(bundle: &Bundle, steps: &SeenSteps) -> bool {
    let claims = chain(bundle)
        .into_iter()
        .filter_map(|step| steps.get(&step.at));
    let mut leaves = claims.flatten().flat_map(|claim| &claim.leaves);
    leaves.any(|(_, is_right)| *is_right == Some(false))
}

/// In how many steps of the chain the secrets of an auditor draw a wrong leaf, where chance decides
/// what is drawn: it was not seen, as the chain stands. Its chains of secrets are numbered from
/// `first`.
pub fn hidden_hits(bundle: &Bundle, (of, first): (&WorkerId, u64), steps: &SeenSteps) -> u32 {
    if !has_wrong_leaf(bundle, steps) {
        return 0;
    }
    let held = enrolments(bundle, of, first);
    let is_hit = |step: &&ChainStep| {
        // The newest enrolment for an attempt is the one that counts.
        let mut newest = held.iter().rev();
        let found = newest.find_map(|(enrolment, chain)| {
            let index = enrolment.index(step.attempt)?;
            Some((enrolment.rate, chain.secret(index)?))
        });
        let (Some((rate, secret)), Some(claims)) = (found, steps.get(&step.at)) else {
            return false;
        };
        let counts =
            !bundle.spec.decides(step.at.0) && claims.iter().all(|claim| !claim.leaves.is_empty());
        counts
            && claims.iter().any(|claim| {
                let count = claim.leaves.len() as u32;
                let drawn = auditor::drawn(&secret, &step.entry, &claim.worker, rate, count, false);
                drawn.into_iter().any(|index| wrong(claim, index))
            })
    };
    chain(bundle).iter().filter(is_hit).count() as u32
}
