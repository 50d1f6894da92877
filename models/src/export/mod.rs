//! Writes safetensors files, Hugging Face folders and GGUF files. Each file is replaced whole or
//! not at all.

mod folder;
mod generated;
mod gguf;
mod replace;
mod shards;
mod source;
mod tensors;

pub use folder::{FolderForm, SHARD_BYTES, save_companions, save_model, save_source, usual_dtype};
pub use generated::{FillValues, write_generated};
pub use gguf::{GgufKind, gguf_note, write_gguf};
pub use replace::{replace_file, replace_file_by};
pub use source::ExportSource;
pub use tensors::{ExportDtype, write_tensors};
