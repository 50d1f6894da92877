//! Hugging Face models as Concord computes them: configuration, weights and data in;
//! adapters and weights out.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod companions;
pub mod config;
pub mod data;
pub mod decoder;
pub mod error;
pub mod export;
pub mod generate;
pub mod generation_config;
pub mod golden;
pub mod hub;
mod json;
mod neutral;
pub mod peft;
pub mod train;
pub mod weights;

pub use error::ModelError;
