//! RMSNorm (Zhang and Sennrich 2019): `y = (x * r) * w`, `r = 1 / sqrt(mean(x^2) + eps)`.

use super::reduce;

/// Returns y `[rows, cols]` and r `[rows]`.
pub fn forward(x: &[f32], w: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let mut y = Vec::with_capacity(x.len());
    let mut inverse = Vec::new();
    for row in x.chunks_exact(w.len()) {
        let mean = reduce::dot(row, row) / w.len() as f32;
        let r = 1.0 / (mean + eps).sqrt();
        inverse.push(r);
        y.extend(row.iter().zip(w).map(|(x, w)| (x * r) * w));
    }
    (y, inverse)
}

/// dx `[rows, cols]`, from dy, x, w and the forward pass's r:
/// `g = dy * w`, `c = ((sum(g * x) * r) * r) / cols`, `dx = r * fma(-x, c, g)`.
pub fn backward(dy: &[f32], x: &[f32], w: &[f32], inverse: &[f32]) -> Vec<f32> {
    let cols = w.len();
    let mut dx = Vec::with_capacity(x.len());
    for ((dy, x), &r) in dy.chunks_exact(cols).zip(x.chunks_exact(cols)).zip(inverse) {
        let g: Vec<f32> = dy.iter().zip(w).map(|(dy, w)| dy * w).collect();
        let c = ((reduce::dot(&g, x) * r) * r) / cols as f32;
        dx.extend(g.iter().zip(x).map(|(g, x)| r * (-x).mul_add(c, *g)));
    }
    dx
}

/// dw `[cols]` over the rows of one atom, in order: `fma(dy, x * r, dw)`.
pub fn weight_gradient(dy: &[f32], x: &[f32], inverse: &[f32], cols: usize) -> Vec<f32> {
    let mut dw = vec![0.0f32; cols];
    for ((dy, x), &r) in dy.chunks_exact(cols).zip(x.chunks_exact(cols)).zip(inverse) {
        for (dw, (dy, x)) in dw.iter_mut().zip(dy.iter().zip(x)) {
            *dw = dy.mul_add(x * r, *dw);
        }
    }
    dw
}
