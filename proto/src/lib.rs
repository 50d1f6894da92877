//! The vocabulary of Concord: what is hashed, signed, stored and sent.
//!
//! Every type that leaves a process has one canonical encoding ([`canonical`]); every digest has a
//! domain tag ([`Domain`]); no `usize`, no float text and no map order is in any of them.
//!
//! ```
//! use concord_proto::{Keypair, Signed};
//!
//! let key = Keypair::from_secret([7; 32]);
//! let signed = Signed::new(&key, &"what is said".to_string());
//! assert_eq!(signed.open::<String>()?, "what is said");
//!
//! let mut altered = signed.clone();
//! altered.body[4] ^= 1;
//! assert!(altered.open::<String>().is_err());
//! # Ok::<(), concord_proto::SignedError>(())
//! ```

// Types and functions are documented; a field whose name and type say everything is not.
#![allow(missing_docs)]

pub mod address;
pub mod blob_store;
pub mod canonical;
pub mod client;
pub mod crypto;
pub mod limits;
#[cfg(feature = "grpc")]
pub mod link;
pub mod manifest;
pub mod moment;
pub mod sequence;
pub mod serving;
pub mod session;
pub mod tensor;
pub mod training;
#[cfg(feature = "grpc")]
pub mod wire;

pub use crypto::{
    Digest, Domain, Hasher, Keypair, PublicKey, Signed, SignedError, WorkerId, merkle,
};
pub use sequence::{SequenceEntry, TrainingSequence};
pub use training::{
    AdapterSpec, AttemptId, BatchPlan, Claim, ClaimInput, ClaimedLeaf, Conviction, Course,
    CurveFromZero, Edge, EvaluationSpec, ExpertCuts, F32Bits, FirstHalf, FrameHeader, GradientPart,
    HeldOut, InvalidSpec, JobId, JobSpec, Layers, Leaf, LeafKey, LeafPhase, LoraUpdates, LossLimit,
    MicrobatchLoss, ModelPlace, MomentFormat, Optimizer, Order, Origin, OtherUpdate, Patience,
    Plan, Port, PortKind, PrecisionSpec, RateSchedule, Regularization, Replica, ScheduleKind,
    SignedHalf, Slot, StepRecord, StepWork, TensorNorm, TensorState, TrainedTensor, UpdateRule,
    UpdateSize, auditor, draw, first_half_digest, held_out, leaf_root, ledger, microbatch_digest,
    tree,
};

/// Version of the arithmetic contract (NUMERICS.md). It changes when any output bit may change.
pub const ARITHMETIC_VERSION: u32 = 1;

/// Version of the messages between processes. Both sides must have the same.
pub const PROTOCOL_VERSION: u32 = 12;
