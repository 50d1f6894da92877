//! A worker that serves: a stage of a pipeline, and the judge of answers.

mod audit;
mod book;
mod claim;
mod draw;
mod engine;
mod frame;
mod handle;
mod host;
pub mod judge;
mod lane;
mod load;
mod memory;
mod seat;
mod sender;

pub(crate) use audit::audit;
pub(crate) use handle::StageHandle;
pub(crate) use host::{Context, Host};
pub(crate) use load::Loader;
