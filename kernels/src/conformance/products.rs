//! Coding and products.

use super::{Case, Draw, Outputs, Size, values};
use crate::coded::{Coded, Precision};
use crate::ops::Atoms;
use crate::{Device, KernelError};

const PRECISIONS: [Precision; 3] = [Precision::I8, Precision::I14, Precision::I16];

pub(super) fn cases(size: Size) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut shapes = vec![
        (1, 1, 1),
        (1, 65, 33),
        (3, 64, 64),
        (65, 31, 129),
        (130, 96, 70),
    ];
    if size == Size::Full {
        shapes.extend([(1, 4_096, 1_024), (256, 512, 2_048), (513, 1_025, 1_023)]);
    }
    for (m, n, k) in shapes {
        for a in PRECISIONS {
            for b in PRECISIONS {
                cases.push(Case::new(
                    format!("products {m}x{n}x{k} {a:?} {b:?}"),
                    move |device, draw| products(device, draw, (m, n, k), a, b),
                ));
            }
        }
    }
    // Where sums leave the range of i32, and the lengths at which kernels spill them.
    for k in [1_023, 1_024, 1_025, 4_100, 65_536, 65_537, 131_200] {
        for precision in PRECISIONS {
            cases.push(Case::new(
                format!("digits at their limit, depth {k} {precision:?}"),
                move |device, _| limits(device, k, precision),
            ));
        }
    }
    for (sequences, len) in [(1, 1), (2, 300), (1, 513)] {
        cases.push(Case::new(
            format!("weight gradient {sequences}x{len}"),
            move |device, draw| weight_gradient(device, draw, sequences, len),
        ));
    }
    cases
}

/// The codes as numbers.
fn codes(coded: &Coded) -> Result<Outputs, KernelError> {
    let coded = coded.on_host()?;
    let q = coded.q.data().iter().map(|&q| f32::from(q)).collect();
    let exp = coded.exp.data().iter().map(|&e| e as f32).collect();
    Ok(vec![q, exp])
}

fn products(
    device: &Device,
    draw: &Draw,
    (m, n, k): (usize, usize, usize),
    a: Precision,
    b: Precision,
) -> Result<Outputs, KernelError> {
    let x = device.place(draw.tensor(1, &[m, k])?)?;
    let w = device.place(draw.tensor(2, &[n, k])?)?;
    let dy = device.place(draw.tensor(3, &[m, n])?)?;
    let (xc, wc) = (device.code(&x, k, a)?, device.code(&w, k, b)?);
    let mut outputs = codes(&xc)?;
    outputs.extend(codes(&wc)?);
    let y = device.matmul(&xc, &wc)?;
    let dx = device.matmul_dx(&dy, &wc, a)?;
    outputs.extend(values([y, dx])?);
    Ok(outputs)
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
    draw: &Draw,
    sequences: usize,
    len: usize,
) -> Result<Outputs, KernelError> {
    let tokens = sequences * len;
    let x = device.place(draw.tensor(4, &[tokens, 40])?)?;
    let dy = device.place(draw.tensor(5, &[tokens, 56])?)?;
    let atoms = Atoms::new(sequences, len);
    let xc = device.code(&x, 40, Precision::I16)?;
    let dw = device.matmul_dw(&dy, &xc, &atoms, Precision::I16)?;
    let bias = device.bias_gradient(&dy, &atoms)?;
    values([dw, bias])
}
