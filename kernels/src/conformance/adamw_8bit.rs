//! Steps of the optimizer with moments in 8 bits.

use super::{CaseInput, CaseSize, OperationCase, Outputs};
use crate::reference::adamw::AdamStep;
use crate::reference::adamw_8bit::BLOCK_WORDS;
use crate::{Device, KernelError, MomentKind, PackedMoment, Tensor};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut lengths = vec![1, 255, 256, 9_001];
    if size == CaseSize::Full {
        lengths.push(1_000_003);
    }
    let case = |len| {
        OperationCase::new(format!("adamw_8bit {len}"), move |device, input| {
            adamw_8bit(device, input, len)
        })
    };
    lengths.into_iter().map(case).collect()
}

fn adamw_8bit(device: &Device, input: &CaseInput, len: usize) -> Result<Outputs, KernelError> {
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
    let (gradient, mut value) = (place(64)?, place(65)?);
    let squares: Vec<f32> = input.numbers(67, len).iter().map(|v| v.abs()).collect();
    let squares = Tensor::new(&[len], squares)?;
    let moment = |kind, numbers: &Tensor| {
        device.place_moment(PackedMoment::nearest(kind, "moment", numbers)?)
    };
    let mut m = moment(MomentKind::First, &input.tensor(66, &[len])?)?;
    let mut v = moment(MomentKind::Second, &squares)?;
    let old = m.clone();
    device.adamw_8bit(&step, &gradient, &mut value, &mut m, &mut v)?;
    // Where a moment overflows, all say so, and of the same number.
    let refused = match device.check_moments(&[("m", &m), ("of second", &v)]) {
        Ok(()) => Vec::new(),
        Err(KernelError::NotFinite { tensor, index, .. }) => {
            vec![tensor.len() as f32, index as f32]
        }
        Err(error) => return Err(error),
    };
    let moments: Result<Outputs, KernelError> = [old, m, v].iter().map(words).collect();
    Ok([moments?, vec![value.into_values()?, refused]].concat())
}

/// Scales as they are, and codes as numbers.
pub(super) fn words(moment: &PackedMoment) -> Result<Vec<f32>, KernelError> {
    let words = moment.words()?;
    let blocks = words.chunks(BLOCK_WORDS).flat_map(|words| {
        let codes: &[u8] = bytemuck::cast_slice(&words[1..]);
        let scale = f32::from_bits(words[0]);
        std::iter::once(scale).chain(codes.iter().map(|&code| f32::from(code)))
    });
    Ok(blocks.collect())
}
