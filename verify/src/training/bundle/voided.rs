//! Attempts that were committed and are void: what their claims say, so that it can be seen what
//! auditors have drawn of them.

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::ledger::claim_digest;
use concord_proto::{
    Claim, Digest, FirstHalf, Signed, WorkerId, canonical, first_half_digest, leaf_root,
};

use super::chain::StepLeaves;
use super::files::VOIDED;
use super::history::History;
use super::{Bundle, VerifyError, VoidClaims};

/// The leaves of void attempts whose claims are there, by attempt.
pub(super) type VoidLeaves<'a> = BTreeMap<u32, StepLeaves<'a>>;

/// Checks that the claims of void attempts are those that were committed. Some may be missing: what
/// was drawn of those nobody can tell.
pub(super) fn check<'a>(
    bundle: &'a Bundle,
    history: &History,
) -> Result<VoidLeaves<'a>, VerifyError> {
    let mut leaves = VoidLeaves::new();
    for void in &bundle.voided {
        let refuse = |why: &str| {
            let statement = format!("attempt {}", void.attempt);
            VerifyError::new(VOIDED, statement, why)
        };
        let mut known = history.auditors.voided.iter();
        let known = known.find(|known| known.attempt == void.attempt);
        let known = known.ok_or_else(|| refuse("the ledger has no such void attempt"))?;
        let of_step = open(void, &known.claims).map_err(|why| refuse(&why))?;
        if leaves.insert(void.attempt, of_step).is_some() {
            return Err(refuse("it is there twice"));
        }
    }
    Ok(leaves)
}

/// The leaves of an attempt, whose claims have these digests.
fn open<'a>(void: &'a VoidClaims, committed: &[Digest]) -> Result<StepLeaves<'a>, String> {
    let claims = &void.claims;
    let digests = claims.iter().map(|given| claim_digest(&given.claim));
    if !digests.eq(committed.iter().copied()) {
        return Err("its claims are not those that were committed".to_string());
    }
    let mut signers = BTreeSet::new();
    let mut leaves = StepLeaves::new();
    for given in claims {
        let [first, second] = given.halves();
        let worker = given.claim.signer;
        let half: FirstHalf = signed_by(&first.signed, worker)?;
        let claim: Claim = signed_by(&second.signed, worker)?;
        let roots = (half.leaf_root, claim.leaf_root);
        let is_whole = half.attempt.number == void.attempt
            && claim.first_half == first_half_digest(&first.signed)
            && roots == (leaf_root(&first.leaves), leaf_root(&second.leaves))
            && signers.insert(worker);
        if !is_whole {
            let worker = worker.short();
            return Err(format!("its leaves are not those of the claim of {worker}"));
        }
        leaves.push((worker, &given.leaves[..]));
    }
    Ok(leaves)
}

fn signed_by<T: canonical::Canonical>(signed: &Signed, by: WorkerId) -> Result<T, String> {
    match signed.signer == by {
        true => signed.open().map_err(|error| error.to_string()),
        false => Err(format!("{} has not signed it", by.short())),
    }
}
