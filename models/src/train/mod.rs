//! What is trained: values, moments, the schedule, and the update of one step.

mod init;
mod moment;
mod optimizer;
mod schedule;
mod state;

pub use init::lora_init;
pub use moment::{Moment, MomentForm};
pub use optimizer::{OptimizerSettings, UpdateRule};
pub use schedule::{Curve, FromZero, LearningRate};
pub use state::{StateTensor, StepScalars, TrainState, gradient_norm, mean_loss};
