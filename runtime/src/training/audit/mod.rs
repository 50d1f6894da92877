//! The inputs of a leaf that is audited, and its second computation.

mod again;
mod fetching;
mod inputs;
mod job;
mod rerun;
mod trace;

pub(crate) use fetching::missing;
pub(crate) use inputs::{GivenInputs, Inputs, OpenedLeaf};
pub(crate) use job::AuditedJob;
pub(crate) use rerun::LeafRerun;
pub(crate) use trace::Trace;
