//! Steps of Lion with its momentum in 8 bits.

use super::adamw_8bit::words;
use super::{CaseInput, CaseSize, OperationCase, Outputs};
use crate::reference::lion::LionStep;
use crate::{Device, KernelError, MomentKind, PackedMoment};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut lengths = vec![1, 255, 256, 9_001];
    if size == CaseSize::Full {
        lengths.push(1_000_003);
    }
    let case = |len| {
        OperationCase::new(format!("lion_8bit {len}"), move |device, input| {
            lion_8bit(device, input, len)
        })
    };
    lengths.into_iter().map(case).collect()
}

fn lion_8bit(device: &Device, input: &CaseInput, len: usize) -> Result<Outputs, KernelError> {
    let step = LionStep {
        gradient_scale: 0.37,
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.01,
    };
    let place = |stream| device.place(input.tensor(stream, &[len])?);
    let (gradient, mut value) = (place(64)?, place(65)?);
    let momentum = PackedMoment::nearest(MomentKind::First, "m", &input.tensor(66, &[len])?)?;
    let mut momentum = device.place_moment(momentum)?;
    device.lion_8bit(&step, &gradient, &mut value, &mut momentum)?;
    Ok(vec![value.into_values()?, words(&momentum)?])
}
