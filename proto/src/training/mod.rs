//! Training: the job, who does which part of it, and what is signed about each step.

mod attempt;
pub mod auditor;
mod claim;
mod conviction;
mod evaluation;
mod expert_cuts;
mod f32_bits;
mod frame;
mod job;
mod layers;
pub mod ledger;
mod lora;
mod optimizer;
mod order;
mod plan;
mod record;
mod schedule;
pub mod tree;

pub use attempt::AttemptId;
pub use claim::{
    Claim, ClaimInput, FirstHalf, GradientPart, Leaf, LeafKey, LeafPhase, MicrobatchLoss, Origin,
    Port, PortKind, TensorNorm, TensorState, first_half_digest, leaf_root,
};
pub use conviction::{ClaimedLeaf, Conviction, SignedHalf};
pub use evaluation::{Course, StepWork};
pub use expert_cuts::ExpertCuts;
pub use f32_bits::F32Bits;
pub use frame::FrameHeader;
pub use job::{
    AdapterSpec, CurveFromZero, EvaluationSpec, HeldOut, InvalidSpec, JobId, JobSpec, LossLimit,
    ModelPlace, Order, Patience, PrecisionSpec, RateSchedule, Regularization, ScheduleKind,
    TrainedTensor,
};
pub use layers::{Edge, Layers};
pub use lora::{LoraUpdates, OtherUpdate, UpdateSize};
pub use optimizer::{MomentFormat, Optimizer, UpdateRule};
pub use order::{BatchPlan, held_out, microbatch_digest};
pub use plan::{Plan, Replica, Slot};
pub use record::StepRecord;
