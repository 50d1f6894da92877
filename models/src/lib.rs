//! Hugging Face models: reads configuration and weights, computes and trains, and writes
//! adapters and weights.
//!
//! [`config`] and [`weights`] read a model's folder or its GGUF file, [`decoder`] computes any run
//! of its layers, [`generate`] draws tokens, [`train`] updates what is trained, [`peft`] and
//! [`export`] write it.
//! Three tokens of a model whose weights come from a counter, with the same result on two devices:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//!
//! use concord_kernels::Device;
//! use concord_kernels::coded::Precision;
//! use concord_kernels::ops::sample::Sampling;
//! use concord_models::decoder::{Precisions, Stage, StageOptions};
//! use concord_models::generate::Generator;
//! use concord_models::golden::{MadeModel, tiny_llama};
//!
//! let config = Arc::new(tiny_llama());
//! let model = MadeModel {
//!     config: config.clone(),
//!     seed: 1,
//!     reach: 0.25,
//! };
//! let tokens = |device| -> Result<Vec<u32>, concord_models::ModelError> {
//!     let options = StageOptions {
//!         device,
//!         config: config.clone(),
//!         layers: (0..2).into(),
//!         precisions: Precisions {
//!             weights: Precision::I16,
//!             activations: Precision::I16,
//!             key_values: Precision::I16,
//!         },
//!         lora: None,
//!         trains_all: false,
//!         positions: 16,
//!     };
//!     let stage = Stage::load(options, &model, &BTreeMap::new())?;
//!     let sampling = Sampling {
//!         temperature: 0.7,
//!         top_k: 0,
//!         top_p: 1.0,
//!         seed: 5,
//!     };
//!     let mut generator = Generator::new(&stage, sampling)?;
//!     let mut tokens = vec![generator.next(&[1, 2, 3])?];
//!     tokens.push(generator.next(&[tokens[0]])?);
//!     tokens.push(generator.next(&[tokens[1]])?);
//!     Ok(tokens)
//! };
//! assert_eq!(tokens(Device::Reference)?, tokens(Device::cpu(2))?);
//! # Ok::<(), concord_models::ModelError>(())
//! ```

#![deny(unsafe_op_in_unsafe_fn)]

pub mod companions;
pub mod config;
pub mod decoder;
pub mod error;
pub mod export;
pub mod generate;
pub mod generation_config;
pub mod golden;
pub mod hub;
mod json;
pub mod memory;
mod neutral;
pub mod peft;
pub mod train;
pub mod weights;

pub use error::ModelError;
