//! Weights of a model folder, read by name through a memory map.

mod beside;
mod decoded;
mod file;
mod folder;
mod gguf;
mod head;
mod packed;
mod packed_matrix;
mod quantized;
mod rows;
mod shards;
mod unused;

pub use file::{TensorFile, widen_f16};
pub use folder::{ModelFolder, TakeBytes};
pub use packed_matrix::PackedMatrix;
pub use rows::{TakeRows, check_rows, runs_of_rows};
pub use safetensors::Dtype;
#[cfg(feature = "hub")]
pub(crate) use shards::{INDEX, SINGLE, other_weights, shard_names};
