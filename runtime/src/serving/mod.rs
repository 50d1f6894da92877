//! Serving: a stage of a pipeline, its streams, and the judge of answers.

mod host;
pub mod judge;
pub(crate) mod stage;
pub(crate) mod transport;

pub(crate) use host::{Host, HostContext};
