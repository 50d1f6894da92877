//! Files out: safetensors and Hugging Face folders, each file replaced whole or not at all.

mod folder;
mod replace;
mod tensors;

pub use folder::save_model;
pub use replace::replace_file;
pub use tensors::{ExportDtype, write_tensors};
