//! GGUF files: the weights, the configuration and the tokenizer of a model in one file or in parts.

mod config;
mod container;
mod cursor;
mod model;
mod names;
mod rope;
mod tokenizer;
mod tokenizer_pre;
mod values;

#[cfg(feature = "hub")]
pub(crate) use model::gguf_parts;
pub(super) use model::{GgufModel, GgufRows};
