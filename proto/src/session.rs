//! The messages of a session between the coordinator and a worker or checker. Every message is
//! signed by its sender.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, Keypair, PublicKey, Signed, WorkerId};
use crate::serving::{AnswerVerdict, AuditedAnswer, DeploymentId, StageAssignment};
use crate::training::{
    F32Bits, JobId, Layers, Leaf, LeafKey, MicrobatchLoss, Plan, TensorNorm, TensorState, tree,
};

/// What a process is in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Role {
    /// Holds stages.
    Worker,
    /// Re-runs what its own secrets draw, of any job that the coordinator asks it to audit, and
    /// judges answers.
    Checker,
    /// Re-runs what its own secrets draw, of jobs that name its key, and nothing else.
    Auditor,
}

/// What a device is and can do, as measured by its owner.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DeviceInfo {
    /// Such as "cpu avx512 x2".
    pub name: String,
    /// Multiply-adds a second of the `w16a16` product.
    pub macs_per_second: u64,
    /// Memory that the worker may use.
    pub memory_bytes: u64,
}

/// A state that a worker still holds, from before it lost the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Held {
    pub job: JobId,
    /// Steps done and committed.
    pub step: u32,
    /// Layers held.
    pub layers: Layers,
}

/// The first message of a worker or checker.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hello {
    /// Worker or checker.
    pub role: Role,
    /// [`crate::PROTOCOL_VERSION`] of the sender.
    pub protocol: u32,
    /// [`crate::ARITHMETIC_VERSION`] of the sender.
    pub arithmetic: u32,
    pub device: DeviceInfo,
    /// Where other workers and checkers reach this one, such as "concord://10.0.0.7:7701".
    pub endpoint: String,
    /// What it still holds.
    pub held: Option<Held>,
    /// The nonce of [`ToWorker::Challenge`]: a Hello that somebody recorded opens no session.
    pub challenge: [u8; 32],
}

/// From a worker or checker to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ToCoordinator {
    /// The first message.
    Hello(Hello),
    /// Still here.
    Heartbeat,
    /// The stage is loaded; steps may start.
    Ready {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
    },
    /// The stage could not be loaded, or the step could not be done.
    Failed {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
        /// Cause, place and remedy.
        reason: String,
        /// Whether another worker would fail in the same way: the job's own fault.
        permanent: bool,
    },
    /// All gradients of the stage are summed up.
    Computed {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
        step: u32,
        /// The signed [`crate::FirstHalf`].
        first_half: Signed,
        /// Its leaves: all but the update.
        leaves: Vec<Leaf>,
        /// Losses of the worker's microbatches, where it holds the last stage.
        losses: Vec<MicrobatchLoss>,
        /// Squared norms of the gradients of the worker's tensors.
        norms: Vec<TensorNorm>,
    },
    /// The update is computed and not yet final.
    Updated {
        /// The signed [`crate::Claim`].
        claim: Signed,
        /// Its leaves: the update; of an evaluation none.
        leaves: Vec<Leaf>,
    },
    /// The state asked for by [`ToWorker::Flush`] is in the store.
    Flushed {
        job: JobId,
        /// Steps done.
        step: u32,
        /// The stage's trained tensors.
        state: Vec<TensorState>,
    },
    /// A signed [`crate::training::ledger::Verdict`].
    Verdict {
        /// The order that it answers.
        order: u64,
        verdict: Signed,
    },
    /// The answer to [`ToWorker::Enrol`]: a signed [`crate::training::auditor::Enrolment`].
    Enrolled { enrolment: Signed },
    /// The answer to [`ToWorker::Reveal`]: a signed [`crate::training::auditor::Reveal`].
    Revealed { reveal: Signed },
    /// The worker wants to leave: move its work away.
    Drain,
    /// The stage or the step takes more memory than the worker has. It still holds the committed
    /// state.
    OutOfMemory {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
        /// Cause, place and remedy.
        reason: String,
        /// What it held, and what it would have needed beyond that.
        needed_bytes: u64,
        /// The most that the worker can hold.
        limit_bytes: u64,
    },
    /// The layers that a [`StageAssignment`] lists under `standby` are loaded.
    StandsBy {
        deployment: DeploymentId,
        /// The plan's epoch.
        epoch: u32,
        layers: Vec<Layers>,
    },
    /// A stage of a deployment cannot be loaded or cannot go on.
    StageFailed {
        deployment: DeploymentId,
        /// The plan's epoch.
        epoch: u32,
        /// Cause, place and remedy.
        reason: String,
        /// Whether another worker would fail in the same way.
        permanent: bool,
    },
    /// The answer to [`ToWorker::AuditAnswer`].
    AnswerVerdict {
        /// Number of the order.
        order: u64,
        /// What came of it.
        verdict: AnswerVerdict,
    },
    /// A tensor cannot be sent to another worker of the plan: nobody answers at its address.
    Unreached {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
        /// Who is not reached.
        worker: WorkerId,
        /// What was tried, and what came of it.
        reason: String,
    },
}

/// A stage to hold.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Assignment {
    pub plan: Plan,
    /// Blob address of the [`crate::training::JobSpec`].
    pub spec: Digest,
    /// Blob address of the [`crate::manifest::StateManifest`] to start from.
    pub state: Digest,
    /// Where each worker of the plan is reached, in the plan's order.
    pub endpoints: Vec<String>,
    /// Whether layers are computed again in the backward pass: of each, what enters it is kept.
    pub recompute: bool,
    /// How many microbatches may be in flight in one pipeline.
    pub depth: u32,
}

/// A leaf to re-run.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditOrder {
    /// Number of the order, for the answer.
    pub order: u64,
    /// Blob address of the [`crate::training::JobSpec`].
    pub spec: Digest,
    pub job: JobId,
    /// The attempt whose leaf it is.
    pub attempt: u32,
    /// The plan's epoch.
    pub epoch: u32,
    pub step: u32,
    /// Whose leaf.
    pub worker: WorkerId,
    /// The leaf's place among those of the worker.
    pub index: u32,
    /// Where its inputs can be fetched.
    pub endpoint: String,
    pub leaf: Leaf,
}

/// The leaves of a worker in a final step that checkers may ask for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AuditedStep {
    pub job: JobId,
    /// The plan's epoch.
    pub epoch: u32,
    pub step: u32,
    /// By rising key.
    pub leaves: Vec<LeafKey>,
}

/// What an auditor is to commit to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EnrolOrder {
    pub job: JobId,
    /// See [`crate::training::auditor::Enrolment`].
    pub from: u32,
    /// For how many attempts.
    pub length: u32,
    /// The probability that a leaf is drawn, `p * 2^32`.
    pub rate: u64,
    /// Digest of the enrolment that the ledger has, where it is good for attempts to come: it goes
    /// on, if the auditor still has its secrets.
    pub known: Option<Digest>,
    /// Digest of the auditor's last reveal in the ledger. Those that came after it are sent again.
    pub last: Option<Digest>,
}

/// From the coordinator to a worker or checker.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ToWorker {
    /// The answer to [`Hello`].
    Welcome {
        /// The coordinator's key.
        coordinator: PublicKey,
        /// Send a heartbeat this often.
        heartbeat_ms: u32,
    },
    /// The pool does not take this process. It is final.
    Refused {
        /// Why, and what would help.
        reason: String,
    },
    /// Load a stage.
    Assign(Box<Assignment>),
    /// Do a step.
    Step {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
        step: u32,
        /// The entry of the ledger that says so, which the claims name.
        started: Signed,
    },
    /// The losses and norms of all workers: compute the update.
    Scalars {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
        scalars: Scalars,
    },
    /// The step is final.
    Commit {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
        step: u32,
        /// Digest of its record.
        record: Digest,
        /// Openings of steps below this one may be forgotten.
        release_below: u32,
    },
    /// Of a final step checkers may ask for these leaves of the receiver's claim. The inputs of all
    /// others may be forgotten.
    Audited(AuditedStep),
    /// Commit to secrets, as an auditor of a job.
    Enrol(EnrolOrder),
    /// Open the secret of an attempt that is committed.
    Reveal {
        job: JobId,
        /// The signed entry of the ledger.
        committed: Signed,
    },
    /// The plan is withdrawn. Go back to the last committed step and hold its state.
    Abort {
        job: JobId,
        /// The plan's epoch.
        epoch: u32,
    },
    /// Put the committed state into the store.
    Flush { job: JobId },
    /// The job is over. Forget it.
    Forget { job: JobId },
    /// Re-run a leaf.
    Audit(Box<AuditOrder>),
    /// A drained worker may leave.
    Leave,
    /// The first message of a session: answer it in [`Hello`].
    Challenge {
        /// Made for this session.
        nonce: [u8; 32],
    },
    /// Hold a stage of a deployment, or stand by for some. It replaces what was assigned before.
    Serve(Box<StageAssignment>),
    /// The deployment needs this worker no more.
    Unserve { deployment: DeploymentId },
    /// Compute an answer again.
    AuditAnswer(AuditedAnswer),
    /// Others cannot reach this worker at the address that it gave in its [`Hello`].
    Unreached {
        /// Who has tried, and what came of it.
        reason: String,
    },
}

/// The losses and squared norms of a step, from all its workers: those that the leaves of the first
/// halves bind.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Scalars {
    pub step: u32,
    /// [`crate::first_half_digest`] of each worker's first half, in the plan's order.
    pub first_halves: Vec<Digest>,
    /// One for each microbatch, in order.
    pub losses: Vec<MicrobatchLoss>,
    /// One for each trained tensor, in order.
    pub norms: Vec<TensorNorm>,
    /// Predicted tokens of the step.
    pub targets: u64,
}

impl Scalars {
    /// The digest that update leaves name.
    pub fn digest(&self) -> Digest {
        Digest::of_value(Domain::Blob, self)
    }

    /// The mean loss of the step: the sums of its microbatches, added by the tree, over its
    /// targets. Every operation is correctly rounded, so all machines get the same bits. `None`
    /// where there are no losses.
    pub fn mean_loss(&self) -> Option<F32Bits> {
        let sums: Vec<f32> = self.losses.iter().map(|loss| loss.sum.get()).collect();
        let total = tree::sum(&sums)?;
        Some(F32Bits::from(total / self.targets as f32))
    }

    /// The global norm of the mean gradient: squared norms of the summed gradients, added by the
    /// tree, in the order of the tensors. `None` where there are no norms.
    pub fn grad_norm(&self) -> Option<F32Bits> {
        let squared: Vec<f32> = self.norms.iter().map(|norm| norm.squared.get()).collect();
        let total = tree::sum(&squared)?;
        Some(F32Bits::from(total.sqrt() / self.targets as f32))
    }
}

/// What a checker asks a worker for: the inputs of one leaf.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OpenRequest {
    pub job: JobId,
    /// The plan's epoch.
    pub epoch: u32,
    pub step: u32,
    /// What the leaf's work was.
    pub phase: crate::training::LeafPhase,
    /// Its first microbatch.
    pub microbatch: u32,
}

/// The answer: what opens the inputs of the leaf.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Opening {
    /// For each input port of the leaf, in order, addresses of the blobs that its digest is over.
    /// The worker gives them out.
    Inputs(Vec<Vec<Digest>>),
    /// The inputs of a sum are no longer held: what its microbatches are computed from again.
    Again {
        /// Addresses of the values before the step, by rising index of the tensor.
        values: Vec<Digest>,
        /// For each microbatch of the sum, by rising index.
        microbatches: Vec<OpenedMicrobatch>,
    },
    /// They are gone, or never were.
    Gone,
}

/// What a stage received of a microbatch, by blob address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OpenedMicrobatch {
    /// From the stage before, if there is one.
    pub activation: Option<Digest>,
    /// From the stage after, if there is one.
    pub gradient: Option<Digest>,
}

/// What the coordinator asks at the address that a worker advertises: only the holder of the
/// worker's key can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AddressChallenge {
    /// Who is said to be there.
    pub worker: WorkerId,
    /// Made for this question alone.
    pub nonce: [u8; 32],
}

/// The answer: a signature under a domain of its own, so that a worker that answers cannot be made
/// to sign anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct AddressProof {
    /// Over [`Domain::AddressChallenge`] and the challenge.
    pub signature: [u8; 64],
}

impl AddressChallenge {
    fn message(&self) -> Digest {
        Digest::of_value(Domain::AddressChallenge, self)
    }

    /// The proof of the worker that is asked for; `None` where `key` is not that worker's.
    pub fn answer(&self, key: &Keypair) -> Option<AddressProof> {
        let is_asked = key.public() == self.worker;
        is_asked.then(|| AddressProof {
            signature: key.sign(&self.message()),
        })
    }

    /// Whether `proof` was signed by the worker that is asked for.
    pub fn is_proven_by(&self, proof: &AddressProof) -> bool {
        self.worker.verifies(&self.message(), &proof.signature)
    }
}
