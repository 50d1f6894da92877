//! Which leaves are audited. The draw is made once the claims are in, from a nonce that the
//! coordinator committed to before the work. So nobody can choose what is drawn, and anybody can
//! derive it again.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, Hasher, WorkerId};

/// The probability that a leaf of a worker is drawn, in units of 2^-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditRate {
    /// Whose leaves.
    pub worker: WorkerId,
    /// `p * 2^32`, at most 2^32.
    pub rate: u64,
}

/// The commitment to a nonce, which is published before the work.
pub fn nonce_commitment(nonce: &[u8; 32]) -> Digest {
    Digest::of(Domain::Nonce, nonce)
}

/// The seed of a draw: over the nonce and the claim digests of the step, in the plan's order.
pub fn seed(nonce: &[u8; 32], claims: &[Digest]) -> Digest {
    let mut hasher = Hasher::new(Domain::Draw);
    hasher.update(nonce);
    claims.iter().for_each(|claim| hasher.update(&claim.0));
    hasher.finish()
}

/// The leaves of one worker that are drawn in a step, by index: each with the probability of its
/// rate, and all where `decides` (the step's loss decides about the result, [`JobSpec::decides`]);
/// none at a rate of 0.
///
/// [`JobSpec::decides`]: crate::training::JobSpec::decides
pub fn drawn(seed: &Digest, rate: &AuditRate, leaf_count: u32, decides: bool) -> Vec<u32> {
    if decides && rate.rate > 0 {
        return (0..leaf_count).collect();
    }
    let ticket = |index: u32| {
        let mut hasher = Hasher::new(Domain::Draw);
        hasher.update(&seed.0);
        hasher.update(&rate.worker.0);
        hasher.update(&index.to_le_bytes());
        let bytes = hasher.finish().0;
        u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    (0..leaf_count)
        .filter(|&index| ticket(index) < rate.rate)
        .collect()
}
