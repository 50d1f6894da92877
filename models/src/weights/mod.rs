//! Weights of a model folder, read by name through a memory map.

mod beside;
mod blocks;
mod decoded;
mod entry;
mod file;
mod folder;
mod gguf;
mod head;
mod load_in;
mod packed;
mod pickle;
mod quantized;
mod quantizing;
mod repacked;
mod rows;
mod shards;
mod squared_norm;
mod unused;

pub use blocks::{BlockMatrix, StoredForm};
pub use file::{TensorFile, map_bytes};
pub use folder::{ModelFolder, TakeBytes};
#[cfg(feature = "hub")]
pub(crate) use gguf::gguf_parts;
pub(crate) use gguf::{
    Architecture, PRE_TOKENIZERS, PreTokenizer, RowOrder, alike, architecture_names, of_family,
    pre_tokenizer, stored,
};
#[cfg(feature = "hub")]
pub(crate) use quantized::OLDER_METHODS;
pub use rows::{TakeRows, check_rows, runs_of_rows};
pub use safetensors::Dtype;
#[cfg(feature = "hub")]
pub(crate) use shards::{Layout, other_weights, shard_names};
pub(crate) use squared_norm::squared_norm;
