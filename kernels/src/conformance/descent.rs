//! Steps of the optimizers beside AdamW.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::reference::lion::LionStep;
use crate::reference::sgd::SgdStep;
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let len = match size {
        CaseSize::Full => 1_000_003,
        _ => 9_001,
    };
    let mut cases = vec![OperationCase::new(
        format!("lion {len}"),
        move |device, input| lion(device, input, len),
    )];
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let name = format!("sgd {len} {momentum} {nesterov}");
        cases.push(OperationCase::new(name, move |device, input| {
            sgd(device, input, len, (momentum, nesterov))
        }));
    }
    cases
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

fn sgd(
    device: &Device,
    input: &CaseInput,
    len: usize,
    (momentum, nesterov): (f32, bool),
) -> Result<Outputs, KernelError> {
    let step = SgdStep {
        gradient_scale: 0.37,
        learning_rate: 1e-3,
        momentum,
        nesterov,
        weight_decay: 0.01,
    };
    let kept = if momentum == 0.0 { 0 } else { len };
    let place = |stream, len| device.place(input.tensor(stream, &[len])?);
    let (gradient, mut value, mut m) = (place(36, len)?, place(37, len)?, place(38, kept)?);
    device.sgd(&step, &gradient, &mut value, &mut m)?;
    values([value, m])
}
