//! LoRA adapters as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! What is written here is read by `PeftModel.from_pretrained`; its bytes are a pure function of
//! the adapter and the name of the base model.

mod adapter;
mod config;
mod merged;
mod notes;

pub use adapter::Adapter;
pub use merged::MergedModel;

pub use crate::config::Projection;
