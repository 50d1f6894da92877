//! GGUF files: the weights, the configuration and the tokenizer of a model in one file or in parts.

mod architectures;
mod beside;
mod config;
mod container;
mod cursor;
mod differences;
mod fields;
mod model;
mod names;
mod parts;
mod rope;
mod rows;
mod tokenizer;
mod tokenizer_pre;
mod values;

pub(super) use model::GgufModel;
#[cfg(feature = "hub")]
pub(crate) use parts::gguf_parts;
pub(super) use rows::GgufRows;
