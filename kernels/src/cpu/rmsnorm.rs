//! RMSNorm by rows. Twin of [`crate::reference::rmsnorm`].

use rayon::prelude::*;

use super::{Cpu, reduce};

/// Returns y `[rows, cols]` and r `[rows]`.
pub fn forward(cpu: &Cpu, x: &[f32], w: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let cols = w.len();
    let mut y = vec![0.0; x.len()];
    let mut inverse = vec![0.0; x.len() / cols];
    let rows = cpu.rows_per_task(cols);
    cpu.pool().install(|| {
        y.par_chunks_mut(rows * cols)
            .zip(inverse.par_chunks_mut(rows))
            .zip(x.par_chunks(rows * cols))
            .for_each(|((y, inverse), x)| forward_rows(cpu.isa(), x, w, eps, y, inverse));
    });
    (y, inverse)
}

per_isa! {
    fn forward_rows(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], inverse: &mut [f32])
     = forward_body
}

#[inline(always)]
fn forward_body(x: &[f32], w: &[f32], eps: f32, y: &mut [f32], inverse: &mut [f32]) {
    let cols = w.len();
    for ((x, y), r) in x
        .chunks_exact(cols)
        .zip(y.chunks_exact_mut(cols))
        .zip(inverse)
    {
        let mean = reduce::dot(x, x) / cols as f32;
        *r = 1.0 / (mean + eps).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = (x * *r) * w;
        }
    }
}

/// dx `[rows, cols]`.
pub fn backward(cpu: &Cpu, dy: &[f32], x: &[f32], w: &[f32], inverse: &[f32]) -> Vec<f32> {
    let cols = w.len();
    let mut dx = vec![0.0; x.len()];
    let rows = cpu.rows_per_task(cols);
    cpu.pool().install(|| {
        dx.par_chunks_mut(rows * cols)
            .zip(dy.par_chunks(rows * cols))
            .zip(x.par_chunks(rows * cols))
            .zip(inverse.par_chunks(rows))
            .for_each(|(((dx, dy), x), inverse)| backward_rows(cpu.isa(), dy, x, w, inverse, dx));
    });
    dx
}

per_isa! {
    fn backward_rows(dy: &[f32], x: &[f32], w: &[f32], inverse: &[f32], dx: &mut [f32])
     = backward_body
}

#[inline(always)]
fn backward_body(dy: &[f32], x: &[f32], w: &[f32], inverse: &[f32], dx: &mut [f32]) {
    let cols = w.len();
    let rows = dy
        .chunks_exact(cols)
        .zip(x.chunks_exact(cols))
        .zip(dx.chunks_exact_mut(cols));
    for (((dy, x), dx), &r) in rows.zip(inverse) {
        for ((g, dy), w) in dx.iter_mut().zip(dy).zip(w) {
            *g = dy * w;
        }
        let c = ((reduce::dot(dx, x) * r) * r) / cols as f32;
        for (g, x) in dx.iter_mut().zip(x) {
            *g = r * (-x).mul_add(c, *g);
        }
    }
}

per_isa! {
    /// dw `[cols]` over the rows of one atom, added to zeros in `dw`.
    pub fn weight_gradient(dy: &[f32], x: &[f32], inverse: &[f32], dw: &mut [f32])
     = weight_gradient_body
}

#[inline(always)]
fn weight_gradient_body(dy: &[f32], x: &[f32], inverse: &[f32], dw: &mut [f32]) {
    let cols = dw.len();
    for ((dy, x), &r) in dy.chunks_exact(cols).zip(x.chunks_exact(cols)).zip(inverse) {
        for (dw, (dy, x)) in dw.iter_mut().zip(dy.iter().zip(x)) {
            *dw = dy.mul_add(x * r, *dw);
        }
    }
}
