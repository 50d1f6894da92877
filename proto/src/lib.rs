//! The vocabulary of Concord: what is hashed, signed, stored and sent.
//!
//! Every type that leaves a process has one canonical encoding ([`canonical`]); every digest has a
//! domain tag ([`Domain`]); no `usize`, no float text and no map order is in any of them.

pub mod address;
pub mod blob_store;
pub mod bundle;
pub mod canonical;
mod claim;
pub mod client;
mod digest;
pub mod draw;
mod job;
pub mod ledger;
pub mod limits;
pub mod manifest;
pub mod merkle;
mod order;
mod plan;
mod record;
pub mod rules;
pub mod serving;
pub mod session;
mod signed;
pub mod tree;
pub mod wire;

pub use claim::{
    Claim, Input, Leaf, MicrobatchLoss, Origin, Part, Phase, Port, PortKind, TensorNorm,
    TensorState, leaf_root,
};
pub use digest::{Digest, Domain, Hasher};
pub use job::{
    AdamW, AdapterSpec, F32Bits, InvalidSpec, JobId, JobSpec, Order, Place, PrecisionSpec,
    Schedule, ScheduleKind, TrainableTensor,
};
pub use order::{BatchPlan, microbatch_digest};
pub use plan::{Layers, Plan, Replica, Seat};
pub use record::StepRecord;
pub use signed::{Keypair, PublicKey, Signed, SignedError, WorkerId};

/// Version of the arithmetic contract (NUMERICS.md). It changes when any output bit may change.
pub const ARITHMETIC_VERSION: u32 = 1;

/// Version of the messages between processes. Both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 5;
