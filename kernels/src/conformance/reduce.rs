//! Short sums of fixed shape.

use super::{CaseInput, OperationCase, Outputs};
use crate::{Device, KernelError};

pub(super) fn cases() -> Vec<OperationCase> {
    let case = |len| {
        OperationCase::new(format!("sums of {len}"), move |device, input| {
            sums(device, input, len)
        })
    };
    [0, 1, 31, 4_095, 4_096, 4_097, 12_301].map(case).into()
}

fn sums(device: &Device, input: &CaseInput, len: usize) -> Result<Outputs, KernelError> {
    let x = device.place(input.tensor(61, &[len])?)?;
    let y = device.place(input.tensor(62, &[len / 2])?)?;
    let squares = device.sum_squares(&[&x, &y, &x])?;
    Ok(vec![vec![device.sum(&x)?], squares])
}
