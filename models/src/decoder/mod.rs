//! One decoder for all families: any run of its layers is a stage, forward and backward.
//!
//! Shapes: m tokens of a microbatch, d hidden, q query width, k key width, f intermediate, v vocab.
//! Linear layers hold their weights as codes; what is trained keeps its f32 values outside, in
//! [`crate::train::TrainState`].

mod attention;
mod block;
mod cache;
mod cut_rows;
mod dense;
mod embedding;
mod experts;
mod feed_forward;
mod gradients;
mod head;
mod layer_rest;
mod linear;
mod norm;
mod pass;
mod qkv;
mod random;
mod serve;
mod source;
mod stage;
mod targets;
mod trainable;
mod values;
mod weight_bytes;

pub use cache::KvCache;
pub use gradients::{GradientKey, Gradients, TensorUse};
pub use head::HeadLoss;
pub use linear::dora::{norms, squared_norms};
pub use random::StepRegularization;
pub use serve::{PassInput, PassOutput, StageAdapter, StageRun};
pub use source::TensorSource;
pub use stage::{Batch, Keeps, Precisions, Stage, StageInput, StageOptions, StageTape};
pub use trainable::{Trainable, TrainableTensor};
pub use values::Values;
pub use weight_bytes::WeightBytes;

pub use crate::config::LoraSpec;
