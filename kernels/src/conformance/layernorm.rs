//! Norms that subtract the mean.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::reference::tree::Atoms;
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut shapes = vec![(1, 1), (3, 64), (5, 172), (257, 33), (2, 5_000)];
    if size == CaseSize::Full {
        shapes.push((512, 4_096));
    }
    let case = |(rows, cols)| {
        OperationCase::new(format!("layernorm {rows}x{cols}"), move |device, input| {
            layernorm(device, input, rows, cols)
        })
    };
    shapes.into_iter().map(case).collect()
}

fn layernorm(
    device: &Device,
    input: &CaseInput,
    rows: usize,
    cols: usize,
) -> Result<Outputs, KernelError> {
    let place = |stream| device.place(input.tensor(stream, &[rows, cols])?);
    let (x, dy) = (place(92)?, place(93)?);
    let w = device.place(input.tensor(94, &[cols])?)?;
    let b = device.place(input.tensor(95, &[cols])?)?;
    let (y, mean, inverse) = device.layernorm(&x, &w, Some(&b), 1e-5)?;
    let (plain, ..) = device.layernorm(&x, &w, None, 1e-5)?;
    let dx = device.layernorm_dx(&dy, &x, &w, &mean, &inverse)?;
    let dw = device.layernorm_dw(&dy, &x, &mean, &inverse, cols, &Atoms::new(1, rows))?;
    values([y, plain, mean, inverse, dx, dw])
}
