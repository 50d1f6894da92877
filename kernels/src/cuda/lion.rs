//! Lion in place.

use super::grids::over;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::reference::lion::LionStep;

const STEP: Kernel = Kernel {
    module: "lion",
    name: "lion_step",
};

/// Updates value and momentum from the summed gradient. All of one length.
pub(crate) fn step(
    cuda: &Cuda,
    step: &LionStep,
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
            step.beta1,
            step.beta2,
            step.weight_decay,
        ],
    )
}
