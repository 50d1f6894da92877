//! Steps of gradient descent.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::reference::sgd::SgdStep;
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let len = match size {
        CaseSize::Full => 1_000_003,
        _ => 9_001,
    };
    let case = |(momentum, nesterov): (f32, bool)| {
        let name = format!("sgd {len} {momentum} {nesterov}");
        OperationCase::new(name, move |device, input| {
            sgd(device, input, len, (momentum, nesterov))
        })
    };
    let kinds = [(0.0, false), (0.9, false), (0.9, true)];
    kinds.into_iter().map(case).collect()
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
