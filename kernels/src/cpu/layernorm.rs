//! LayerNorm by rows. Twin of [`crate::reference::layernorm`].

use rayon::prelude::*;

use super::{Cpu, reduce};

/// y `[rows, cols]`, mean `[rows]` and r `[rows]`.
pub fn forward(cpu: &Cpu, x: &[f32], w: &[f32], b: Option<&[f32]>, eps: f32) -> [Vec<f32>; 3] {
    let cols = w.len();
    let mut y = vec![0.0; x.len()];
    let (mut means, mut inverse) = (vec![0.0; x.len() / cols], vec![0.0; x.len() / cols]);
    let rows = cpu.rows_per_task(cols);
    cpu.pool().install(|| {
        y.par_chunks_mut(rows * cols)
            .zip(means.par_chunks_mut(rows).zip(inverse.par_chunks_mut(rows)))
            .zip(x.par_chunks(rows * cols))
            .for_each(|((y, scales), x)| forward_rows(cpu.isa(), x, (w, b), eps, y, scales));
    });
    [y, means, inverse]
}

per_isa! {
    fn forward_rows(x: &[f32], weights: (&[f32], Option<&[f32]>), eps: f32, y: &mut [f32],
                    scales: (&mut [f32], &mut [f32])) = forward_body
}

#[inline(always)]
fn forward_body(
    x: &[f32],
    (w, b): (&[f32], Option<&[f32]>),
    eps: f32,
    y: &mut [f32],
    (means, inverse): (&mut [f32], &mut [f32]),
) {
    let cols = w.len();
    let rows = x.chunks_exact(cols).zip(y.chunks_exact_mut(cols));
    for ((x, y), (mean, r)) in rows.zip(means.iter_mut().zip(inverse)) {
        *mean = reduce::sum(x) / cols as f32;
        for (y, x) in y.iter_mut().zip(x) {
            *y = x - *mean;
        }
        *r = 1.0 / (reduce::dot(y, y) / cols as f32 + eps).sqrt();
        match b {
            Some(b) => {
                for (y, (w, b)) in y.iter_mut().zip(w.iter().zip(b)) {
                    *y = (*y * *r).mul_add(*w, *b);
                }
            }
            None => {
                for (y, w) in y.iter_mut().zip(w) {
                    *y = (*y * *r) * w;
                }
            }
        }
    }
}

/// dx `[rows, cols]`.
pub fn backward(
    cpu: &Cpu,
    dy: &[f32],
    x: &[f32],
    w: &[f32],
    means: &[f32],
    inverse: &[f32],
) -> Vec<f32> {
    let cols = w.len();
    let mut dx = vec![0.0; x.len()];
    let rows = cpu.rows_per_task(cols);
    cpu.pool().install(|| {
        dx.par_chunks_mut(rows * cols)
            .zip(dy.par_chunks(rows * cols).zip(x.par_chunks(rows * cols)))
            .zip(means.par_chunks(rows).zip(inverse.par_chunks(rows)))
            .for_each(|((dx, (dy, x)), scales)| backward_rows(cpu.isa(), dy, x, w, scales, dx));
    });
    dx
}

per_isa! {
    fn backward_rows(dy: &[f32], x: &[f32], w: &[f32], scales: (&[f32], &[f32]), dx: &mut [f32])
     = backward_body
}

#[inline(always)]
fn backward_body(
    dy: &[f32],
    x: &[f32],
    w: &[f32],
    (means, inverse): (&[f32], &[f32]),
    dx: &mut [f32],
) {
    let cols = w.len();
    let mut normed = vec![0.0; cols];
    let rows = dy
        .chunks_exact(cols)
        .zip(x.chunks_exact(cols))
        .zip(dx.chunks_exact_mut(cols));
    for (((dy, x), dx), (mean, &r)) in rows.zip(means.iter().zip(inverse)) {
        for (h, x) in normed.iter_mut().zip(x) {
            *h = (x - mean) * r;
        }
        for (g, (dy, w)) in dx.iter_mut().zip(dy.iter().zip(w)) {
            *g = dy * w;
        }
        let a = reduce::sum(dx) / cols as f32;
        let c = reduce::dot(dx, &normed) / cols as f32;
        for (g, h) in dx.iter_mut().zip(&normed) {
            *g = r * (-h).mul_add(c, *g - a);
        }
    }
}

per_isa! {
    /// dw `[cols]` over the rows of one atom, whose means and inverses are `scales`, added to zeros
    /// in `dw`.
    pub fn weight_gradient(dy: &[f32], x: &[f32], scales: (&[f32], &[f32]), dw: &mut [f32])
     = weight_gradient_body
}

#[inline(always)]
fn weight_gradient_body(dy: &[f32], x: &[f32], (means, inverse): (&[f32], &[f32]), dw: &mut [f32]) {
    let cols = dw.len();
    let rows = dy.chunks_exact(cols).zip(x.chunks_exact(cols));
    for ((dy, x), (mean, r)) in rows.zip(means.iter().zip(inverse)) {
        for (dw, (dy, x)) in dw.iter_mut().zip(dy.iter().zip(x)) {
            *dw = dy.mul_add((x - mean) * r, *dw);
        }
    }
}
