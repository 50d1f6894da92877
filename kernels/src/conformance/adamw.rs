//! Steps of the optimizer.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::reference::adamw::AdamStep;
use crate::{Device, KernelError, Tensor};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut lengths = vec![9_001];
    if size == CaseSize::Full {
        lengths.push(1_000_003);
    }
    let case = |len| {
        OperationCase::new(format!("adamw {len}"), move |device, input| {
            adamw(device, input, len)
        })
    };
    lengths.into_iter().map(case).collect()
}

fn adamw(device: &Device, input: &CaseInput, len: usize) -> Result<Outputs, KernelError> {
    let step = AdamStep {
        gradient_scale: 0.37,
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        bias1: 0.1,
        bias2: 0.001,
        epsilon: 1e-8,
        weight_decay: 0.01,
    };
    let place = |stream| device.place(input.tensor(stream, &[len])?);
    let (gradient, mut value, mut m) = (place(36)?, place(37)?, place(38)?);
    let squares: Vec<f32> = input.numbers(39, len).iter().map(|v| v.abs()).collect();
    let mut v = device.place(Tensor::new(&[len], squares)?)?;
    let old = value.clone();
    device.adamw(&step, &gradient, &mut value, &mut m, &mut v)?;
    values([old, value, m, v])
}
