//! Convictions: what shows that a party is guilty, for anyone who doubts it.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::merkle::{self, MerklePath};
use crate::crypto::{Digest, Signed};
use crate::manifest::StateEntry;
use crate::training::{Leaf, Port};

/// One half of what a worker signed for a step, with all its leaves.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedHalf {
    /// The signed [`crate::FirstHalf`], or the signed [`crate::Claim`].
    pub signed: Signed,
    /// Those that its root is over.
    pub leaves: Vec<Leaf>,
}

/// A leaf, with the way from it to what its worker signed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClaimedLeaf {
    /// The signed [`crate::Claim`] for an update, the signed [`crate::FirstHalf`] for all others.
    pub half: Signed,
    pub leaf: Leaf,
    /// From the leaf to the root in that half.
    pub path: MerklePath,
}

impl ClaimedLeaf {
    /// The leaf of this digest among the leaves of a half, or `None` where it is none of them.
    pub fn of(half: &Signed, leaves: &[Leaf], digest: &Digest) -> Option<Self> {
        let digests: Vec<Digest> = leaves.iter().map(Leaf::digest).collect();
        let index = digests.iter().position(|found| found == digest)?;
        Some(Self {
            half: half.clone(),
            leaf: leaves[index].clone(),
            path: merkle::path(&digests, index as u32)?,
        })
    }
}

/// What the ledger has against a convicted party. A reader can check all of it but one thing: that
/// the inputs of a leaf give `computed` (and `trace`), which takes a re-run.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Conviction {
    /// A worker signed other outputs than the inputs of its leaf give.
    WrongResult {
        claimed: ClaimedLeaf,
        /// See [`Conviction::FalseVerdict::inputs`].
        inputs: Vec<Vec<Digest>>,
        /// What the inputs give.
        computed: Vec<Port>,
    },
    /// A checker signed another finding than a re-run of the leaf gives, or another trace of it.
    FalseVerdict {
        /// The signed [`crate::ledger::Verdict`].
        verdict: Signed,
        claimed: ClaimedLeaf,
        /// For each input of the leaf, in order, the addresses of the blobs that its digest is
        /// over. Of a sum whose microbatches were computed again: the values before the step, then
        /// for each microbatch the activation and the gradient that the stage received, if any.
        inputs: Vec<Vec<Digest>>,
        /// What the inputs give.
        computed: Vec<Port>,
        /// The trace of their computation, under the checker's key; see
        /// [`crate::ledger::Verdict::trace`].
        trace: Digest,
    },
    /// A worker signed a claim that breaks a rule.
    BrokenRule {
        /// The first half of its claim.
        first: SignedHalf,
        /// The second half, where it is that one which breaks a rule.
        second: Option<SignedHalf>,
        /// The state before the step, as the coordinator had it: one entry for each trained
        /// tensor.
        before: Vec<StateEntry>,
    },
    /// A worker signed a tensor that it sent, and another one in its claim.
    Equivocation {
        /// The leaf that gives the tensor.
        claimed: ClaimedLeaf,
        /// The tensor as it was sent.
        sent: Port,
        /// The sender's, over [`crate::Origin::message`].
        signature: [u8; 64],
    },
}
