//! The worker: holds a stage, computes microbatches, moves tensors, signs claims. And the checker,
//! which re-runs their leaves.

mod backoff;
pub mod blobs;
pub mod checker;
pub mod core;
mod data;
mod engine;
mod error;
pub mod identity;
#[cfg(feature = "liars")]
pub mod liar;
pub mod measure;
mod model_blobs;
pub mod serving;
mod session;
pub mod spec;
pub mod tensor_blob;
mod work;
pub mod worker;
#[cfg(feature = "wrong-data")]
pub mod wrong_data;

pub use backoff::Backoff;
pub use error::RuntimeError;
pub use session::connect;
