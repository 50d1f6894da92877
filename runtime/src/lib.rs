//! Workers and checkers. A worker holds a stage of a model, trains or serves with it, and signs
//! what it did; a checker computes a sample of that work again.
//!
//! | module | holds |
//! |---|---|
//! | [`worker`], [`checker`] | the two kinds of process: sessions, gRPC, timers around the rest |
//! | [`referee`] | the same re-runs, in the process of a coordinator |
//! | [`training`] | the engine, the work of a leaf, its audit, and the replay of steps |
//! | [`serving`] | a stage of a pipeline, its streams, and the judge of answers |
//! | [`faults`] | liars, for tests of the proof; empty in a release |
//! | [`heads`] | what a process keeps of the ledgers that it was shown |
//! | [`blobs`], [`tensor_blob`], [`spec`] | what both share: tensors by digest, settings of a job |
//!
//! Tensors travel as content-addressed blobs, the same bytes on every machine:
//!
//! ```
//! use concord_kernels::Tensor;
//! use concord_runtime::tensor_blob;
//!
//! let tensor = Tensor::new(&[2, 2], vec![1.0, -2.5, 0.0, 4.0])?;
//! let bytes = tensor_blob::encode(&tensor)?;
//! let decoded = tensor_blob::decode(&bytes).expect("it was encoded here");
//! assert_eq!(decoded.data(), tensor.data());
//! assert_eq!(tensor_blob::digest(&decoded)?, tensor_blob::digest(&tensor)?);
//! # Ok::<(), concord_kernels::KernelError>(())
//! ```

mod backoff;
pub mod blobs;
pub mod checker;
mod durable;
mod error;
pub mod faults;
pub mod heads;
pub mod identity;
pub mod measure;
mod model_blobs;
pub mod moment_blob;
pub mod referee;
pub mod serving;
mod session;
pub mod spec;
mod stage_cache;
pub mod tensor_blob;
pub mod training;
mod witness;
pub mod worker;

pub use backoff::Backoff;
pub use error::RuntimeError;
pub use session::connect;
