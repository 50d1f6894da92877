//! Serving: what is asked, how stages pass it on, and what is signed about an answer.
//!
//! An answer is a pure function of its [`GenerationSpec`]. Only the coordinator's scheduler knows
//! sequences; what a stage computes is a function of its pages and of the [`Pass`] that it is
//! given.

mod deployment;
mod draw;
mod generation;
mod nonce;
mod pass;
mod precision;
mod receipt;
mod receipt_batch;
mod stage_stream;
mod view;

pub use deployment::{
    AdapterManifest, Deployment, DeploymentId, ServedModel, ServingProfile, StageAssignment,
};
pub use draw::{Draw, DrawOrder, Drawn, SampleOrder, bias};
pub use generation::{
    Control, Finish, Generation, GenerationSpec, GrammarSpec, SamplingSpec, TokenLogprob,
    TokenReading, Update, Usage, choice_seed,
};
pub use nonce::{draw_seed, nonce_commitment};
pub use pass::{Pass, PassHeader, PassResult, SequenceRun, runs_digest};
pub use precision::ServedPrecision;
pub use receipt::{
    AnswerVerdict, AuditedAnswer, ClaimOrder, ClaimedDraws, GivenLogprobs, Receipt, StageClaim,
    row_digest, tokens_digest,
};
pub use receipt_batch::{BatchedReceipt, BatchedReceiptError, ReceiptBatch};
pub use stage_stream::{FromStage, Passed, StageStreamHello, ToStage};
pub use view::{LinkView, PipelineView, PoolView, StageView, WorkerView};

/// Tokens of a page of keys and values: a block of attention (NUMERICS.md, section 5), so that no
/// kernel has to gather.
pub const PAGE_TOKENS: u32 = 128;
