//! What clients ask of a coordinator: to submit jobs, watch them and fetch results.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, PublicKey, WorkerId};
use crate::session::{DeviceInfo, Role};
use crate::training::ledger::Offence;
use crate::training::{ExpertCuts, F32Bits, JobId, JobSpec, Plan};

/// What the planner needs to know of a model. No tensor is in it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ModelProfile {
    /// Multiply-adds of the forward pass through one layer, for one token.
    pub layer_macs: u64,
    /// Multiply-adds of the head and the loss, for one token.
    pub head_macs: u64,
    /// Bytes that one layer takes in memory, weights and codes.
    pub layer_bytes: u64,
    /// Bytes of the embedding.
    pub embed_bytes: u64,
    pub head_bytes: u64,
    /// Bytes that both ends count, and a stage with both ends holds once.
    pub shared_bytes: u64,
    /// Bytes of values, moments and gradients of the trained tensors of one layer.
    pub layer_state_bytes: u64,
    /// Bytes of one gradient of each of these tensors: what replicas send each other of a layer.
    pub layer_gradient_bytes: u64,
    /// Bytes that one microbatch in flight takes in one layer.
    pub layer_activation_bytes: u64,
    /// Bytes that a stage takes beyond those of its layers: buffers for what it receives and sends,
    /// and the process itself.
    pub workspace_bytes: u64,
    /// Bytes of hidden states that pass between two stages for one microbatch.
    pub boundary_bytes: u64,
    pub microbatch_tokens: u64,
    /// How much the backward pass costs, in percent of the forward pass.
    pub backward_percent: u32,
    /// Cuts within a layer.
    pub cuts: ExpertCuts,
}

/// Stages x replicas: fixed by the user, or left to the planner.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum PlanChoice {
    /// The planner decides.
    Auto,
    /// The user says how many stages and replicas.
    Fixed {
        /// Stages in each pipeline.
        stages: u32,
        /// Pipelines.
        replicas: u32,
        /// Microbatches of each pipeline; empty leaves the shares to the planner.
        shares: Vec<u32>,
    },
}

/// How a job is run. None of it changes a bit of the result.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RunOptions {
    /// A name for people.
    pub name: String,
    /// Stages x replicas.
    pub plan: PlanChoice,
    /// Wait for this many workers before the first plan.
    pub min_workers: u32,
    /// How many checkers of the pool audit the job, each by secrets of its own; the first step
    /// waits until so many have committed to theirs. With 0 one does, where one is there.
    pub checkers: u32,
    /// Steps between two checkpoints in the store.
    pub checkpoint_every: u32,
    /// How many of the newest checkpoints stay in the store until the client says that it has them
    /// ([`ClientRequest::Fetched`]); 0 where it wants none.
    pub checkpoints_kept: u32,
    /// Updates between two states that stay in the store for replay, until the job is done and the
    /// client says that it has them; 0 where none do.
    pub replay_every: u32,
    /// The probability with which each of these checkers draws a leaf, `p * 2^32`.
    pub audit_rate: u64,
    /// The probability with which an agreeing verdict of one is checked by the coordinator's own
    /// re-run, `p * 2^32`. The first one of each checker is, unless this is 0.
    pub recheck_rate: u64,
    /// Whether layers are computed again in the backward pass: of each, what enters it is kept.
    pub recompute: bool,
    /// Who audits the job besides: at most [`AUDITORS_MAX`](crate::limits::AUDITORS_MAX), each
    /// once. The job waits for all of them before its first step.
    pub auditors: Vec<NamedAuditor>,
}

/// An auditor that a job names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NamedAuditor {
    pub key: PublicKey,
    /// The probability that a leaf is drawn, `p * 2^32`.
    pub rate: u64,
}

/// A job to be taken on. The blobs that it names must be in the store.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Submission {
    pub spec: JobSpec,
    /// For the planner.
    pub profile: ModelProfile,
    /// How to run it.
    pub options: RunOptions,
}

/// A question of a client.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ClientRequest {
    /// Which of these blobs does the store lack?
    MissingBlobs(Vec<Digest>),
    /// Take on a job. A job that is known already is joined, not done twice.
    Submit(Box<Submission>),
    Jobs,
    /// The pool.
    Status,
    /// Stop a job. Its checkpoints stay.
    Cancel(JobId),
    /// The proof of a job that is done, as the files of a bundle.
    Bundle(JobId),
    /// The client has fetched a state: one that was told as [`JobEvent::Saved`], or, once the job
    /// is done, one that was kept for replay.
    Fetched {
        job: JobId,
        /// Updates done in it.
        steps: u32,
    },
}

/// The answer to a [`ClientRequest`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ClientResponse {
    /// To [`ClientRequest::MissingBlobs`].
    MissingBlobs(Vec<Digest>),
    /// To [`ClientRequest::Submit`].
    Submitted(JobId),
    /// To [`ClientRequest::Jobs`].
    Jobs(Vec<JobSummary>),
    /// To [`ClientRequest::Status`].
    Status(PoolStatus),
    /// To [`ClientRequest::Cancel`].
    Cancelled,
    /// To [`ClientRequest::Bundle`]: blob address of the canonical list of (file name, bytes).
    Bundle(Digest),
    /// It cannot be done; why, and what would help.
    Refused(String),
    /// To [`ClientRequest::Fetched`].
    Noted,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum JobState {
    /// Waits for workers.
    Waiting(String),
    /// Steps are being done.
    Running,
    /// All steps are done; audits are open.
    Auditing,
    /// Done. The digest of the last record, and the blob address of the last state.
    Completed {
        /// Digest of the last step record.
        record: Digest,
        /// Blob address of the [`crate::manifest::StateManifest`].
        state: Digest,
    },
    /// It cannot be done.
    Failed(String),
    /// Stopped by a client.
    Cancelled,
}

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct JobSummary {
    pub job: JobId,
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// Updates committed.
    pub step: u32,
    /// Updates in all.
    pub steps: u32,
    /// Loss of the last committed step.
    pub loss: Option<F32Bits>,
}

/// A member of the pool.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct MemberStatus {
    /// Its key.
    pub id: WorkerId,
    /// Worker or checker.
    pub role: Role,
    pub device: DeviceInfo,
    /// What it does at present, as a sentence.
    pub doing: String,
    /// Audits passed; of a checker, verdicts that were accepted.
    pub audits_passed: u64,
}

/// Who is in the pool, and what they work on.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PoolStatus {
    /// The coordinator's key.
    pub coordinator: PublicKey,
    /// Who is in it.
    pub members: Vec<MemberStatus>,
    /// Who was convicted.
    pub convicted: Vec<WorkerId>,
    pub jobs: Vec<JobSummary>,
}

/// What to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WatchRequest {
    pub job: JobId,
    /// Number of the first event wanted.
    pub from: u64,
}

/// An event in the life of a job, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum JobEvent {
    /// It waits; for what, as a sentence.
    Waiting(String),
    /// A plan takes effect.
    Planned {
        plan: Plan,
        /// Device names, in the plan's order.
        devices: Vec<String>,
        /// Predicted time of a step, in microseconds.
        predicted_step_us: u64,
        /// First step under it.
        step: u32,
        /// Why there is a new plan.
        reason: String,
    },
    /// A step is committed.
    Step {
        /// The step, from 0.
        step: u32,
        /// Mean loss.
        loss: F32Bits,
        /// Gradient norm.
        grad_norm: F32Bits,
        learning_rate: F32Bits,
        /// Tokens of the step.
        tokens: u64,
        /// Microseconds since its start.
        micros: u64,
        /// Digest of its record.
        record: Digest,
    },
    /// A worker of the plan is gone.
    Lost {
        /// Who.
        worker: WorkerId,
        /// How it was noticed.
        reason: String,
    },
    /// An audit agreed.
    Audited {
        /// Whose leaf.
        worker: WorkerId,
        /// Who checked.
        checker: WorkerId,
        /// Of which step, as in [`JobEvent::Step`] or [`JobEvent::Evaluated`].
        step: u32,
        /// Whether that is an evaluation.
        evaluation: bool,
        /// What was re-run, as a sentence.
        leaf: String,
    },
    /// A party was convicted.
    Convicted {
        /// Who.
        culprit: WorkerId,
        /// What of.
        offence: Offence,
        /// The evidence, as a sentence.
        evidence: String,
    },
    /// Steps are void and done again.
    Voided {
        /// First void step.
        from_step: u32,
    },
    /// All is done and audited.
    Completed {
        /// Digest of the last record.
        record: Digest,
        /// Blob address of the last state.
        state: Digest,
        /// Audits that agreed.
        audits: u64,
        /// Drawn leaves that could not be re-run.
        inconclusive: u64,
    },
    /// It cannot be done.
    Failed(String),
    /// Stopped by a client.
    Cancelled,
    /// An evaluation is committed.
    Evaluated {
        /// Updates before it.
        step: u32,
        /// Mean loss on what is held out.
        loss: F32Bits,
        /// Whether no evaluation after an update had one as low before.
        is_best: bool,
        /// Tokens of what is held out.
        tokens: u64,
        /// Microseconds since its start.
        micros: u64,
        /// Digest of its record.
        record: Digest,
    },
    /// The loss on what is held out has not become lower for so long that no step follows.
    Stopped {
        /// Updates that were done.
        step: u32,
        /// Updates before the evaluation with the lowest loss.
        best_step: u32,
        /// That loss.
        best_loss: F32Bits,
    },
    /// A checkpoint is in the store, and stays until the client has fetched it.
    Saved {
        /// Updates done in it.
        steps: u32,
        /// Blob address of the [`crate::manifest::StateManifest`].
        state: Digest,
    },
}
