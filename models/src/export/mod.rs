//! Writes safetensors files and Hugging Face folders. Each file is replaced whole or not at all.

mod folder;
mod generated;
mod replace;
mod tensors;

pub use folder::save_model;
pub use generated::{FillValues, write_generated};
pub use replace::replace_file;
pub use tensors::{ExportDtype, write_tensors};
