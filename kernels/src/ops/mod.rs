//! The operations, as methods of [`Device`](crate::Device): shapes are checked here, then the
//! back-end runs. Shapes that do not fit are bugs of the caller and panic; values never cause a
//! panic.

mod activation;
mod adamw;
mod adamw_8bit;
mod attention;
mod blake3;
mod code;
mod columns;
mod cross_entropy;
mod elementwise;
mod embedding;
mod experts;
mod keys;
mod layernorm;
mod lion;
mod lion_8bit;
mod logprobs;
mod matmul;
mod noise;
mod pages;
mod place;
mod reduce;
mod rmsnorm;
mod rope;
mod route;
pub mod sample;
mod sgd;
mod soft_cap;

pub use crate::reference::activation::Activation;
pub use crate::reference::adamw::AdamStep;
pub use crate::reference::attention::{
    AttentionCodes, AttentionGradients, AttentionOut, AttentionShape, CodedKv,
};
pub use crate::reference::columns::Columns;
pub use crate::reference::cross_entropy::LossForm;
pub use crate::reference::lengths::{LengthGroup, Lengths};
pub use crate::reference::lion::LionStep;
pub use crate::reference::noise::Dropout;
pub use crate::reference::pages::{PAGE_TOKENS, PagedRun};
pub use crate::reference::sgd::SgdStep;
pub use crate::reference::tree::{Atoms, tree_sum};
pub use experts::ExpertRows;
pub use keys::KeyValues;
pub use logprobs::Logprobs;
pub use noise::RandomRows;
pub use pages::KvPages;
pub use place::MemoryScope;
pub use route::{RouterKind, Routes, Routing};
