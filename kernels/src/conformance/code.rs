//! Row coding.

use super::matmul::PRECISIONS;
use super::{CaseInput, CaseSize, OperationCase, Outputs};
use crate::coded::{Coded, Precision};
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut cases = Vec::new();
    let mut shapes = vec![
        (1, 1),
        (1, 33),
        (65, 33),
        (3, 64),
        (65, 129),
        (31, 129),
        (130, 70),
    ];
    if size == CaseSize::Full {
        shapes.extend([(4_096, 1_024), (256, 2_048), (513, 1_023)]);
    }
    for (rows, cols) in shapes {
        for precision in PRECISIONS {
            cases.push(OperationCase::new(
                format!("code {rows}x{cols} {precision:?}"),
                move |device, input| code(device, input, (rows, cols), precision),
            ));
        }
    }
    cases
}

fn code(
    device: &Device,
    input: &CaseInput,
    (rows, cols): (usize, usize),
    precision: Precision,
) -> Result<Outputs, KernelError> {
    let x = device.place(input.tensor(1, &[rows, cols])?)?;
    codes(&device.code(&x, cols, precision)?)
}

/// The codes as numbers.
fn codes(coded: &Coded) -> Result<Outputs, KernelError> {
    let coded = coded.on_host()?;
    let q = coded.q.data().iter().map(|&q| f32::from(q)).collect();
    let exp = coded.exp.data().iter().map(|&e| e as f32).collect();
    Ok(vec![q, exp])
}
