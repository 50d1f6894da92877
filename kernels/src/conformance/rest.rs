//! Norms, activations, loss, embedding, optimizer, sums, sampling, digests.

use super::{Case, Draw, Outputs, Size, values};
use crate::coded::Precision;
use crate::ops::sample::Sampling;
use crate::ops::{AdamStep, Atoms};
use crate::tables::{RopeScaling, RopeTable};
use crate::{Device, KernelError};

pub(super) fn cases(size: Size) -> Vec<Case> {
    let mut cases = vec![
        Case::new("rope 300x48", rope),
        Case::new("swiglu 99x173", swiglu),
        Case::new("head 300x24x77", head),
        Case::new("embedding 300x24", embedding),
        Case::new("adamw 9001", |device, draw| adamw(device, draw, 9_001)),
        Case::new("elementwise 57x33", elementwise),
        Case::new("canonicalise 8 tensors", canonicalise),
    ];
    for (rows, cols) in [(1, 1), (3, 64), (5, 172), (257, 33), (2, 5_000)] {
        cases.push(Case::new(
            format!("rmsnorm {rows}x{cols}"),
            move |device, draw| rmsnorm(device, draw, rows, cols),
        ));
    }
    for vocab in [1, 17, 512, 9_001] {
        cases.push(Case::new(
            format!("cross entropy 6x{vocab}"),
            move |device, draw| cross_entropy(device, draw, vocab),
        ));
    }
    for len in [0, 1, 31, 4_095, 4_096, 4_097, 12_301] {
        cases.push(Case::new(format!("sums of {len}"), move |device, draw| {
            sums(device, draw, len)
        }));
        cases.push(Case::new(
            format!("digest of {len}"),
            move |device, draw| digest(device, draw, len),
        ));
    }
    for vocab in [1, 7, 4_099] {
        cases.push(Case::new(
            format!("sampling from {vocab}"),
            move |device, draw| sampling(device, draw, vocab),
        ));
    }
    if size == Size::Full {
        cases.push(Case::new("rmsnorm 512x4096", |device, draw| {
            rmsnorm(device, draw, 512, 4_096)
        }));
        cases.push(Case::new("cross entropy 6x151936", |device, draw| {
            cross_entropy(device, draw, 151_936)
        }));
        cases.push(Case::new("sampling from 151936", |device, draw| {
            sampling(device, draw, 151_936)
        }));
        cases.push(Case::new("digest of 1000003", |device, draw| {
            digest(device, draw, 1_000_003)
        }));
        cases.push(Case::new("adamw 1000003", |device, draw| {
            adamw(device, draw, 1_000_003)
        }));
    }
    cases
}

fn rmsnorm(device: &Device, draw: &Draw, rows: usize, cols: usize) -> Result<Outputs, KernelError> {
    let place = |stream| device.place(draw.tensor(stream, &[rows, cols])?);
    let (x, dy) = (place(21)?, place(22)?);
    let w = device.place(draw.tensor(23, &[cols])?)?;
    let (y, inverse) = device.rmsnorm(&x, &w, 1e-5)?;
    let dx = device.rmsnorm_dx(&dy, &x, &w, &inverse)?;
    let dw = device.rmsnorm_dw(&dy, &x, &inverse, cols, &Atoms::new(1, rows))?;
    values([y, inverse, dx, dw])
}

fn rope(device: &Device, draw: &Draw) -> Result<Outputs, KernelError> {
    let table = RopeTable::new(16, 10_000.0, RopeScaling::None, 300);
    let table = device.place_rope(table)?;
    let positions = device.ids(&(0..300).rev().collect::<Vec<u32>>())?;
    let mut x = device.place(draw.tensor(24, &[300, 48])?)?;
    device.rope(&mut x, &table, &positions, false)?;
    let forward = x.clone();
    device.rope(&mut x, &table, &positions, true)?;
    values([forward, x])
}

fn swiglu(device: &Device, draw: &Draw) -> Result<Outputs, KernelError> {
    let place = |stream| device.place(draw.tensor(stream, &[99, 173])?);
    let (g, u, dy) = (place(25)?, place(26)?, place(27)?);
    let (dg, du) = device.swiglu_backward(&dy, &g, &u)?;
    values([device.swiglu(&g, &u)?, dg, du])
}

fn cross_entropy(device: &Device, draw: &Draw, vocab: usize) -> Result<Outputs, KernelError> {
    let mut p = device.place(draw.tensor(28, &[6, vocab])?)?;
    let targets = device.targets(&draw.targets(29, 6, vocab as u32))?;
    let losses = device.cross_entropy(&mut p, &targets)?;
    let sum = device.loss_sum(&losses, &Atoms::new(3, 2))?;
    let mut outputs = values([p, losses])?;
    outputs.push(vec![sum]);
    Ok(outputs)
}

fn head(device: &Device, draw: &Draw) -> Result<Outputs, KernelError> {
    let (x, w) = (draw.tensor(30, &[300, 24])?, draw.tensor(31, &[77, 24])?);
    let (x, w) = (device.place(x)?, device.place(w)?);
    let targets = device.targets(&draw.targets(32, 300, 77))?;
    let p = Precision::I16;
    let (xc, wc) = (device.code(&x, 24, p)?, device.code(&w, 24, p)?);
    let mut probabilities = device.matmul(&xc, &wc)?;
    device.cross_entropy(&mut probabilities, &targets)?;
    let dx = device.head_dx(&probabilities, &targets, &wc, p)?;
    let mut dw = device.matmul_dw(&probabilities, &xc, &Atoms::new(1, 300), p)?;
    device.take_targets(&mut dw, &x, &targets)?;
    values([dx, dw])
}

fn embedding(device: &Device, draw: &Draw) -> Result<Outputs, KernelError> {
    let table = device.place(draw.tensor(33, &[41, 24])?)?;
    let dy = device.place(draw.tensor(34, &[300, 24])?)?;
    let ids = device.ids(&draw.ids(35, 300, 41))?;
    let one_id = device.ids(&[7; 300])?;
    values([
        device.embedding(&table, &ids)?,
        device.embedding_gradient(&dy, &ids, 41)?,
        device.embedding_gradient(&dy, &one_id, 41)?,
    ])
}

fn adamw(device: &Device, draw: &Draw, len: usize) -> Result<Outputs, KernelError> {
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
    let place = |stream| device.place(draw.tensor(stream, &[len])?);
    let (gradient, mut value, mut m) = (place(36)?, place(37)?, place(38)?);
    let squares: Vec<f32> = draw.numbers(39, len).iter().map(|v| v.abs()).collect();
    let mut v = device.place(crate::Tensor::new(&[len], squares)?)?;
    let old = value.clone();
    device.adamw(&step, &gradient, &mut value, &mut m, &mut v)?;
    values([old, value, m, v])
}

fn elementwise(device: &Device, draw: &Draw) -> Result<Outputs, KernelError> {
    let place = |stream, shape: &[usize]| device.place(draw.tensor(stream, shape)?);
    let (mut a, b) = (place(40, &[57, 33])?, place(41, &[57, 33])?);
    let bias = place(42, &[33])?;
    let before = a.clone();
    device.add_assign(&mut a, &b)?;
    let sum = a.clone();
    device.scaled_add_assign(&mut a, 0.3, &b)?;
    let scaled = device.scaled(&a, -1.7)?;
    device.add_bias(&mut a, &bias)?;
    let rows = a.rows(5, 9);
    device.put_rows(&mut a, 31, &rows)?;
    values([before, sum, scaled, rows, a])
}

/// Negative zeros go; the first number that is none is named, with its tensor.
fn canonicalise(device: &Device, draw: &Draw) -> Result<Outputs, KernelError> {
    let mut tensors = (0..8)
        .map(|i| device.place(draw.tensor(43 + i, &[100 + 7 * i as usize])?))
        .collect::<Result<Vec<_>, _>>()?;
    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let mut elements = draw.numbers(60, 90);
    elements[17..20].copy_from_slice(&bad);
    let broken = device.place(crate::Tensor::new(&[90], elements)?)?;
    let check = |tensors: &mut [crate::Tensor]| {
        let mut named: Vec<_> = tensors.iter_mut().map(|x| ("x", x)).collect();
        match device.canonicalise(&mut named) {
            Ok(()) => Ok(-1.0),
            Err(KernelError::NotFinite { index, .. }) => Ok(index as f32),
            Err(error) => Err(error),
        }
    };
    let fine = check(&mut tensors)?;
    tensors.insert(3, broken);
    let found = check(&mut tensors)?;
    tensors.remove(3);
    let mut outputs = values(tensors)?;
    outputs.push(vec![fine, found]);
    Ok(outputs)
}

fn sums(device: &Device, draw: &Draw, len: usize) -> Result<Outputs, KernelError> {
    let x = device.place(draw.tensor(61, &[len])?)?;
    let y = device.place(draw.tensor(62, &[len / 2])?)?;
    let squares = device.sum_squares(&[&x, &y, &x])?;
    Ok(vec![vec![device.sum(&x)?], squares])
}

fn digest(device: &Device, draw: &Draw, len: usize) -> Result<Outputs, KernelError> {
    let x = device.place(draw.tensor(63, &[len])?)?;
    let mut digests = Vec::new();
    for prefix in [0, 1, 21, 64, 100] {
        let digest = x.derived_digest(&[7; 32], &vec![0xa5; prefix])?;
        digests.push(digest.iter().map(|&byte| f32::from(byte)).collect());
    }
    Ok(digests)
}

fn sampling(device: &Device, draw: &Draw, vocab: usize) -> Result<Outputs, KernelError> {
    // What is sampled from has been found to be finite.
    let spread = |v: f32| if v.abs() < 1e30 { v * 8.0 } else { v };
    let logits = draw
        .numbers(64, vocab)
        .into_iter()
        .map(spread)
        .collect::<Vec<f32>>();
    let logits = device.place(crate::Tensor::new(&[1, vocab], logits)?)?;
    let mut tokens = Vec::new();
    for (temperature, top_k, top_p) in [(0.0, 0, 1.0), (1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8)]
    {
        for seed in 0..3 {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                seed,
            };
            tokens.push(device.sample(&logits, &sampling, 11 + seed)? as f32);
        }
    }
    Ok(vec![tokens])
}
