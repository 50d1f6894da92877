//! Claims: a worker's signed commitment to the work that it did in one step.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, Hasher, Keypair, Signed, WorkerId, merkle};
use crate::manifest::StateEntry;
use crate::training::attempt::AttemptId;
use crate::training::tree::Node;
use crate::training::{Edge, F32Bits, JobId, Layers};

/// What a leaf's work was.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub enum LeafPhase {
    /// A microbatch through the layers of a stage.
    Forward,
    /// Its gradients back through them.
    Backward,
    /// Gradients of several microbatches added up to one node of the tree.
    Reduce,
    /// The squared norms of the gradients of the whole step.
    Norm,
    /// Gradients of the whole step into new values and moments.
    Update,
}

/// Which gradients a partial sum is of. An embedding that is also the head gets one gradient at
/// each end of the model. Each is summed over the microbatches by itself; then the two are added.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub enum GradientPart {
    /// All trained tensors of the stage but a tied embedding.
    Own,
    /// The tied embedding, as the embedding.
    TiedEmbed,
    /// The tied embedding, as the head.
    TiedHead,
}

/// What a digest at the edge of a leaf is of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub enum PortKind {
    /// The trained tensors of the stage before the step: root over their values.
    State,
    /// Their moments: root over them.
    Moments,
    /// The tokens and mask of the microbatch.
    Tokens,
    /// What goes over a cut, blob address: hidden states, encoded as the number of the layer that
    /// they enter (u32); or, with the highest bit set and an expert (u32) behind it, what the
    /// experts of the layer need from that one on.
    Activation(Edge),
    /// The gradient that goes back over a cut, encoded in the same way, blob address.
    Gradient(Edge),
    /// Sum of the losses over the tokens of the microbatch.
    Loss,
    /// Gradients of the stage's trained tensors summed over a node of the microbatch tree: root
    /// over their blob addresses, in the order of their names.
    Partial {
        /// Which microbatches.
        node: Node,
        /// Of which tensors.
        part: GradientPart,
    },
    /// The scalars of the step: the losses and the squared norms, from all workers.
    Scalars,
    /// The squared norms of the gradients of the stage's trained tensors, over the whole step: the
    /// digest of the list of [`TensorNorm`].
    Norms,
}

/// One digest at the edge of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Port {
    /// What it is of.
    pub kind: PortKind,
    pub digest: Digest,
}

/// Who sent an input, and the signature over it: so that a contradiction between two claims names
/// its culprit.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Origin {
    /// The sender.
    pub worker: WorkerId,
    /// Over [`Origin::message`].
    pub signature: [u8; 64],
}

impl Origin {
    /// What a sender signs. The attempt binds step and plan, and the history before it: what is
    /// sent in one attempt says nothing of another.
    pub fn message(job: &JobId, attempt: &AttemptId, microbatch: u32, port: &Port) -> Digest {
        let mut hasher = Hasher::new(Domain::Signature);
        let body = crate::canonical::encode(&(*job, *attempt, microbatch, *port));
        hasher.update(&body);
        hasher.finish()
    }

    /// Signs what leaves a worker.
    pub fn sign(key: &Keypair, message: &Digest) -> Self {
        Self {
            worker: key.public(),
            signature: key.sign(message),
        }
    }
}

/// An input of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ClaimInput {
    /// What came in.
    pub port: Port,
    /// From which other worker, if any.
    pub origin: Option<Origin>,
}

/// One unit of a claim: small enough to be re-run by a checker.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Leaf {
    /// What was done.
    pub phase: LeafPhase,
    /// For which microbatch; for a sum, the first of its node; 0 for norms and an update.
    pub microbatch: u32,
    /// By which layers.
    pub layers: Layers,
    /// From what.
    pub inputs: Vec<ClaimInput>,
    /// Giving what.
    pub outputs: Vec<Port>,
}

/// Which leaf of a worker's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct LeafKey {
    /// What was done.
    pub phase: LeafPhase,
    /// As in the leaf.
    pub microbatch: u32,
}

impl Leaf {
    /// Which one of its claim it is.
    pub fn key(&self) -> LeafKey {
        LeafKey {
            phase: self.phase,
            microbatch: self.microbatch,
        }
    }

    /// The leaf digest.
    pub fn digest(&self) -> Digest {
        Digest::of_value(Domain::Leaf, self)
    }

    /// The output of `kind`, if the leaf has one.
    pub fn output(&self, kind: PortKind) -> Option<Digest> {
        self.outputs
            .iter()
            .find(|port| port.kind == kind)
            .map(|port| port.digest)
    }

    /// The input of `kind`, if the leaf has one.
    pub fn input(&self, kind: PortKind) -> Option<&ClaimInput> {
        self.inputs.iter().find(|input| input.port.kind == kind)
    }
}

/// The loss of one microbatch, summed over its predicted tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MicrobatchLoss {
    /// Which microbatch.
    pub microbatch: u32,
    /// The sum, in nats.
    pub sum: F32Bits,
}

/// The squared norm of the gradient of one trained tensor, over the whole step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TensorNorm {
    /// Index in [`crate::training::JobSpec::trainable`].
    pub tensor: u32,
    /// Sum of squares.
    pub squared: F32Bits,
}

/// The state of one trained tensor after the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TensorState {
    /// Index in [`crate::training::JobSpec::trainable`].
    pub tensor: u32,
    /// Value and moments.
    pub entry: StateEntry,
}

/// The first half of what a worker signs for one step: all that it computed before it knew the
/// losses and norms of others.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FirstHalf {
    pub job: JobId,
    /// Which attempt at the step it is of, and with it the history that the worker was shown.
    pub attempt: AttemptId,
    /// The attempt before that the worker has taken part in, as far as its process knows: a history
    /// that does not have it is another one.
    pub previous: Option<AttemptId>,
    pub step: u32,
    /// The plan, by epoch and digest.
    pub epoch: u32,
    /// Digest of the plan.
    pub plan: Digest,
    /// Version of the arithmetic contract.
    pub arithmetic: u32,
    /// Merkle root over the digests of its leaves: all but the update.
    pub leaf_root: Digest,
}

/// The second half: the claim, which binds the first.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Claim {
    pub job: JobId,
    pub step: u32,
    /// The plan's epoch.
    pub epoch: u32,
    /// [`first_half_digest`] of the worker's first half.
    pub first_half: Digest,
    /// What the worker says its device is, such as "cpu avx512 x2".
    pub device: String,
    /// Merkle root over the digests of its leaves: the update alone, or none of an evaluation.
    pub leaf_root: Digest,
    /// The stage's trained tensors after the step, by rising index.
    pub state: Vec<TensorState>,
}

/// The root that [`FirstHalf::leaf_root`] and [`Claim::leaf_root`] must be.
pub fn leaf_root(leaves: &[Leaf]) -> Digest {
    merkle::root(&leaves.iter().map(Leaf::digest).collect::<Vec<_>>())
}

/// The digest of a signed [`FirstHalf`], which the claim and the scalars of the step name.
pub fn first_half_digest(signed: &Signed) -> Digest {
    Digest::of_value(Domain::FirstHalf, signed)
}
