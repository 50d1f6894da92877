//! Training: the job, who does which part of it, and what is signed about each step.

mod claim;
pub mod draw;
mod evaluation;
mod expert_cuts;
mod frame;
mod job;
mod layers;
pub mod ledger;
mod order;
mod plan;
mod record;
pub mod tree;

pub use claim::{
    Claim, ClaimInput, GradientPart, Leaf, LeafPhase, MicrobatchLoss, Origin, Port, PortKind,
    TensorNorm, TensorState, leaf_root,
};
pub use evaluation::{Course, StepWork};
pub use expert_cuts::ExpertCuts;
pub use frame::FrameHeader;
pub use job::{
    AdamW, AdapterSpec, CurveFromZero, EvaluationSpec, F32Bits, HeldOut, InvalidSpec, JobId,
    JobSpec, LossLimit, ModelPlace, MomentFormat, Order, Patience, PrecisionSpec, RateSchedule,
    ScheduleKind, TrainedTensor,
};
pub use layers::{Edge, Layers};
pub use order::{BatchPlan, held_out, microbatch_digest};
pub use plan::{Plan, Replica, Slot};
pub use record::StepRecord;
