//! LoRA adapters as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! What is written here is read by `PeftModel.from_pretrained`; its bytes are a pure function of
//! the adapter and the name of the base model.

mod adapter;
mod bad_selection;
mod config;
mod expression;
mod merged;
mod notes;
mod select;
mod written;

pub use adapter::Adapter;
pub use bad_selection::BadSelection;
pub use config::check_options;
pub use merged::MergedModel;
pub use select::{Modules, Selected, Selection};
pub use written::ShapeOptions;

pub use crate::config::Projection;
