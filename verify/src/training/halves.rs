//! The two halves of what a worker signs for a step.

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::{Leaf, LeafPhase, Signed, SignedHalf};

/// What a worker signed of a step: both halves of its claim.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WorkerClaim {
    /// The signed [`concord_proto::FirstHalf`].
    pub first_half: Signed,
    /// The signed [`concord_proto::Claim`].
    pub claim: Signed,
    /// The leaves of both, in order: see [`split_leaves`].
    pub leaves: Vec<Leaf>,
}

impl WorkerClaim {
    /// Each half with its own leaves, the first one first.
    pub fn halves(&self) -> [SignedHalf; 2] {
        let (first, second) = split_leaves(&self.leaves);
        let half = |signed: &Signed, leaves: &[Leaf]| SignedHalf {
            signed: signed.clone(),
            leaves: leaves.to_vec(),
        };
        [half(&self.first_half, first), half(&self.claim, second)]
    }
}

/// The first half of a claim, which was checked: what the second half is checked against.
#[derive(Clone, Copy, Debug)]
pub struct SignedFirst<'a> {
    /// The signed [`concord_proto::FirstHalf`].
    pub signed: &'a Signed,
    pub leaves: &'a [Leaf],
}

/// The leaves of the first half, and those of the second: the update, or none of an evaluation.
pub fn split_leaves(leaves: &[Leaf]) -> (&[Leaf], &[Leaf]) {
    let is_update = |leaf: &Leaf| leaf.phase == LeafPhase::Update;
    let first = leaves.iter().position(is_update).unwrap_or(leaves.len());
    leaves.split_at(first)
}
