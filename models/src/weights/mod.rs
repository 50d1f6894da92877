//! Weights of a model folder, read by name through a memory map.

mod file;
mod folder;
mod head;
mod rows;
mod shards;
mod unused;

pub use file::{TensorFile, widen_f16};
pub use folder::ModelFolder;
pub use rows::{TakeRows, check_rows, runs_of_rows};
pub use safetensors::Dtype;
#[cfg(feature = "hub")]
pub(crate) use shards::{INDEX, SINGLE, other_weights, shard_names};
