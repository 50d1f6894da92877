//! Serving: what is asked, how stages pass it on, and what is signed about an answer.
//!
//! An answer is a pure function of its [`GenerationSpec`]. The coordinator's scheduler is the only one
//! that knows sequences; a stage is a function of its pages and of the [`Pass`] before it.

mod deployment;
mod draw;
mod generation;
mod lane;
mod pass;
mod receipt;
mod view;

pub use deployment::{
    AdapterManifest, Deployment, DeploymentId, ServedModel, ServingProfile, StageAssignment,
};
pub use draw::{Draw, DrawOrder, Drawn, SampleOrder, TokenLogprob, bias};
pub use generation::{
    Control, Finish, Generation, GenerationSpec, Grammar, SamplingSpec, Update, Usage, choice_seed,
};
pub use lane::{FromStage, LaneHello, Passed, ToStage};
pub use pass::{Pass, PassHeader, PassResult, Run, runs_digest};
pub use receipt::{
    AnswerVerdict, AuditedAnswer, ClaimOrder, Receipt, StageClaim, row_digest, tokens_digest,
};
pub use view::{LinkView, PipelineView, PoolView, StageView, WorkerView};

/// Tokens of a page of keys and values: a block of attention (NUMERICS.md, section 5), so that no
/// kernel has to gather.
pub const PAGE_TOKENS: u32 = 128;
