//! Products, and their gradients.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::coded::{Coded, Precision};
use crate::reference::tree::Atoms;
use crate::{Device, KernelError};

pub(super) const PRECISIONS: [Precision; 3] = [Precision::I8, Precision::I14, Precision::I16];

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut cases = Vec::new();
    let mut shapes = vec![
        (1, 1, 1),
        (1, 65, 33),
        (3, 64, 64),
        (65, 31, 129),
        (130, 96, 70),
    ];
    if size == CaseSize::Full {
        shapes.extend([(1, 4_096, 1_024), (256, 512, 2_048), (513, 1_025, 1_023)]);
    }
    for (m, n, k) in shapes {
        for a in PRECISIONS {
            for b in PRECISIONS {
                cases.push(OperationCase::new(
                    format!("products {m}x{n}x{k} {a:?} {b:?}"),
                    move |device, input| products(device, input, (m, n, k), a, b),
                ));
            }
        }
    }
    // Where sums leave the range of i32, and the lengths at which kernels spill them.
    for k in [1_023, 1_024, 1_025, 4_100, 65_536, 65_537, 131_200] {
        for precision in PRECISIONS {
            cases.push(OperationCase::new(
                format!("digits at their limit, depth {k} {precision:?}"),
                move |device, _| limits(device, k, precision),
            ));
        }
    }
    for (sequences, len) in [(1, 1), (2, 300), (1, 513)] {
        cases.push(OperationCase::new(
            format!("weight gradient {sequences}x{len}"),
            move |device, input| weight_gradient(device, input, sequences, len),
        ));
    }
    cases
}

fn products(
    device: &Device,
    input: &CaseInput,
    (m, n, k): (usize, usize, usize),
    a: Precision,
    b: Precision,
) -> Result<Outputs, KernelError> {
    let x = device.place(input.tensor(1, &[m, k])?)?;
    let w = device.place(input.tensor(2, &[n, k])?)?;
    let dy = device.place(input.tensor(3, &[m, n])?)?;
    let (xc, wc) = (device.code(&x, k, a)?, device.code(&w, k, b)?);
    let y = device.matmul(&xc, &wc)?;
    let dx = device.matmul_dx(&dy, &wc, a)?;
    values([y, dx])
}

/// All digits at their largest, so that every partial sum is as large as it can be.
fn limits(device: &Device, k: usize, precision: Precision) -> Result<Outputs, KernelError> {
    let limit = precision.limit() as i16;
    // Low digits are largest in magnitude at -128, which the codes nearest to the limit have.
    let low = if precision == Precision::I8 {
        limit
    } else {
        127 * 256 - 128
    };
    let low = low.min(limit);
    let rows = [limit, -limit, low, -low];
    let coded = Coded {
        rows: rows.len(),
        cols: k,
        precision,
        q: rows
            .iter()
            .flat_map(|&q| vec![q; k])
            .collect::<Vec<_>>()
            .into(),
        exp: vec![0, -3, 5, -40].into(),
    };
    values([device.matmul(&coded, &coded)?])
}

fn weight_gradient(
    device: &Device,
    input: &CaseInput,
    sequences: usize,
    len: usize,
) -> Result<Outputs, KernelError> {
    let tokens = sequences * len;
    let x = device.place(input.tensor(4, &[tokens, 40])?)?;
    let dy = device.place(input.tensor(5, &[tokens, 56])?)?;
    let atoms = Atoms::new(sequences, len);
    let xc = device.code(&x, 40, Precision::I16)?;
    let dw = device.matmul_dw(&dy, &xc, &atoms, Precision::I16)?;
    values([dw])
}
