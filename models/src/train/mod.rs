//! What is trained: values, moments, and the update of one step.

mod held;
mod init;
mod moment;
mod optimizer;
mod state;

pub use held::{StateTensor, StepScalars};
pub use init::lora_init;
pub use moment::{Moment, MomentForm};
pub use optimizer::{OptimizerSettings, StepRule, TensorRule};
pub use state::{TrainState, gradient_norm, mean_loss};
