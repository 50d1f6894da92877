//! What a leaf is computed again from, and its second computation.

mod inputs;
mod job;
mod rerun;

pub(crate) use inputs::{GivenInputs, Inputs, OpenedLeaf, missing};
pub(crate) use job::AuditedJob;
pub(crate) use rerun::LeafRerun;
