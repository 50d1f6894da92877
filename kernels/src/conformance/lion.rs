//! Steps of Lion.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::reference::lion::LionStep;
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let len = match size {
        CaseSize::Full => 1_000_003,
        _ => 9_001,
    };
    let case = move |device: &Device, input: &CaseInput| lion(device, input, len);
    vec![OperationCase::new(format!("lion {len}"), case)]
}

fn lion(device: &Device, input: &CaseInput, len: usize) -> Result<Outputs, KernelError> {
    let step = LionStep {
        gradient_scale: 0.37,
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.01,
    };
    let place = |stream| device.place(input.tensor(stream, &[len])?);
    let (gradient, mut value, mut m) = (place(36)?, place(37)?, place(38)?);
    device.lion(&step, &gradient, &mut value, &mut m)?;
    values([value, m])
}
