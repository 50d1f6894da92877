//! The operations, as methods of [`Device`](crate::Device): shapes are checked here, then the
//! back-end runs. Shapes that do not fit are bugs of the caller and panic; values never do.

mod adamw;
mod attention;
mod cross_entropy;
mod elementwise;
mod embedding;
mod keys;
mod matmul;
mod pages;
mod place;
mod reduce;
mod rmsnorm;
mod rope;
pub mod sample;
mod swiglu;
mod tree;

pub use crate::reference::adamw::AdamStep;
pub use crate::reference::attention::{AttentionShape, CodedKv};
pub use attention::{AttentionCodes, AttentionGradients, AttentionOut};
pub use keys::KeyValues;
pub use pages::{KvPages, PAGE_TOKENS, PagedRun};
pub use place::Account;
pub use tree::{Atoms, tree_sum};
