//! What is held of a trained tensor, and what all steps of a stage are given.

use std::sync::Arc;

use concord_kernels::Tensor;

use super::moment::Moment;

/// One trained tensor. Its parts are shared, so that an old state can be kept while a new one is
/// computed.
#[derive(Clone, Debug)]
pub struct StateTensor {
    /// The tensor as the model uses it.
    pub value: Arc<Tensor>,
    /// Decaying mean of its gradients; empty where the optimizer keeps none, as the other one is.
    pub first_moment: Moment,
    /// Decaying mean of the squares of its gradients, in the same form.
    pub second_moment: Moment,
}

/// What all workers of a step agree on before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepScalars {
    /// Which step of the job, from 0.
    pub step: u32,
    /// Predicted tokens of the step.
    pub targets: u64,
    /// Global norm of the mean gradient.
    pub grad_norm: f32,
    /// The rate at this step, after warm-up and schedule.
    pub learning_rate: f32,
}
