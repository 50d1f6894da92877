//! Training: the engine of a worker, the work of a leaf, and what is needed to do it again: a leaf
//! for an audit, or all steps for a replay.

pub(crate) mod assignment;
pub(crate) mod audit;
pub mod core;
pub(crate) mod data;
pub(crate) mod engine;
pub(crate) mod leaf_work;
pub(crate) mod partial_sums;
pub(crate) mod peers;
pub mod replay;
pub(crate) mod shapes;
