//! AdamW in place.

use super::grids::over;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::reference::adamw::AdamStep;

const STEP: Kernel = Kernel {
    module: "adamw",
    name: "adamw_step",
};

/// Updates value and moments from the summed gradient. All of one length.
pub(crate) fn step(
    cuda: &Cuda,
    step: &AdamStep,
    gradient: &Slice<f32>,
    value: &Slice<f32>,
    m: &Slice<f32>,
    v: &Slice<f32>,
) -> Result<()> {
    let len = gradient.len();
    if len == 0 {
        return Ok(());
    }
    cuda.launch(
        STEP,
        over(cuda, len),
        arguments![
            gradient,
            value,
            m,
            v,
            len as u64,
            step.gradient_scale,
            step.learning_rate,
            step.beta1,
            step.beta2,
            step.bias1,
            step.bias2,
            step.epsilon,
            step.weight_decay,
        ],
    )
}
