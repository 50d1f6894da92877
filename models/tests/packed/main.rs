//! Packed weights against what their own libraries decode (`shared/reference/packed`), bit for bit;
//! and models in GGUF and in packed safetensors, whole and broken.

mod blocks;
mod encoders;
mod families;
mod gguf;
mod gguf_writer;
mod hostile;
mod kept;
mod storages;
mod tokenizers;
mod vectors;
