//! Weights of a model folder, read by name through a memory map.

mod file;
mod folder;

pub use file::{TensorFile, widen_f16};
pub use folder::ModelFolder;
#[cfg(feature = "hub")]
pub(crate) use folder::{INDEX, SINGLE, shard_names};
pub use safetensors::Dtype;
