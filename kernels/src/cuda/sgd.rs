//! Gradient descent in place.

use super::grids::over;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::reference::sgd::SgdStep;

const STEP: Kernel = Kernel {
    module: "sgd",
    name: "sgd_step",
};

/// Updates value and momentum from the summed gradient. All of one length, but for a momentum that
/// is not kept.
pub(crate) fn step(
    cuda: &Cuda,
    step: &SgdStep,
    gradient: &Slice<f32>,
    value: &Slice<f32>,
    m: &Slice<f32>,
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
            len as u64,
            step.gradient_scale,
            step.learning_rate,
            step.momentum,
            u32::from(step.nesterov),
            step.weight_decay,
        ],
    )
}
