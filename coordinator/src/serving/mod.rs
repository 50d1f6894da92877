//! The coordinator's side of serving: streams to stages, a scheduler for each pipeline, receipts.
//!
//! [`ModelService`] is the handle. Each pipeline has a task of its own (`pipeline`) that owns the
//! streams of its stages and drives its scheduler; which workers hold the stages is up to the core.
//! The parts are layers, and none refers to one above it: `router` reaches pipelines by channels,
//! `receipts`, `adapters` and `stage_stream` stand on it, `pipeline` on these, `service` on all.

mod adapters;
mod error;
mod pipeline;
mod receipts;
mod router;
mod service;
mod stage_stream;
mod status;
mod submission;

pub use error::SubmitError;
pub use service::ModelService;
pub(crate) use service::{ServiceParts, ServingTimeouts};
pub use submission::AnswerHandle;
