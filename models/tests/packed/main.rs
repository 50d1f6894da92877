//! Packed weights against what their own libraries decode (`shared/reference/packed`), bit for bit;
//! and models in GGUF and in packed safetensors, whole and broken.

mod blocks;
mod encoders;
mod families;
mod gguf;
mod gguf_export;
mod gguf_families;
mod gguf_writer;
mod gpt_oss;
mod heads;
mod hostile;
mod kept;
mod load_in;
mod methods;
mod storages;
mod tokenizers;
mod vectors;
