//! Weights of a model folder, read by name through a memory map.

mod file;
mod folder;
mod rows;

pub use file::{TensorFile, widen_f16};
pub use folder::ModelFolder;
#[cfg(feature = "hub")]
pub(crate) use folder::{INDEX, SINGLE, shard_names};
pub use rows::{TakeRows, check_rows, runs_of_rows};
pub use safetensors::Dtype;
