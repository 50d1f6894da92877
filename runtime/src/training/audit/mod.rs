//! The inputs of a leaf that is audited, and its second computation.

mod again;
mod inputs;
mod job;
mod rerun;

pub(crate) use inputs::{GivenInputs, Inputs, OpenedLeaf, missing};
pub(crate) use job::AuditedJob;
pub(crate) use rerun::LeafRerun;
