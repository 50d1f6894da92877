//! Norms over rows.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::reference::tree::Atoms;
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut shapes = vec![(1, 1), (3, 64), (5, 172), (257, 33), (2, 5_000)];
    if size == CaseSize::Full {
        shapes.push((512, 4_096));
    }
    let case = |(rows, cols)| {
        OperationCase::new(format!("rmsnorm {rows}x{cols}"), move |device, input| {
            rmsnorm(device, input, rows, cols)
        })
    };
    shapes.into_iter().map(case).collect()
}

fn rmsnorm(
    device: &Device,
    input: &CaseInput,
    rows: usize,
    cols: usize,
) -> Result<Outputs, KernelError> {
    let place = |stream| device.place(input.tensor(stream, &[rows, cols])?);
    let (x, dy) = (place(21)?, place(22)?);
    let w = device.place(input.tensor(23, &[cols])?)?;
    let (y, inverse) = device.rmsnorm(&x, &w, 1e-5)?;
    let dx = device.rmsnorm_dx(&dy, &x, &w, &inverse)?;
    let dw = device.rmsnorm_dw(&dy, &x, &inverse, cols, &Atoms::new(1, rows))?;
    values([y, inverse, dx, dw])
}
