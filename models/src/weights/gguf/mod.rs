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

pub(crate) use architectures::{Architecture, names as architecture_names, of_family};
pub(crate) use beside::alike;
pub(super) use model::GgufModel;
pub(crate) use names::{RowOrder, stored};
#[cfg(feature = "hub")]
pub(crate) use parts::gguf_parts;
pub(super) use rows::GgufRows;
pub(crate) use tokenizer_pre::{KNOWN as PRE_TOKENIZERS, PreTokenizer, named as pre_tokenizer};
