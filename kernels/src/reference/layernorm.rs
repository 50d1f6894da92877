//! LayerNorm (Ba et al. 2016): `y = fma((x - mean) * r, w, b)`, `r = 1 / sqrt(variance + eps)`.

use super::reduce;

/// y `[rows, cols]`, mean `[rows]` and r `[rows]`. The variance is the mean of the squared
/// deviations from the rounded mean, in a second pass: a single pass over sums of squares would
/// lose digits by cancellation.
pub fn forward(x: &[f32], w: &[f32], b: Option<&[f32]>, eps: f32) -> [Vec<f32>; 3] {
    let cols = w.len();
    let [mut y, mut means, mut inverse] = [Vec::with_capacity(x.len()), Vec::new(), Vec::new()];
    for row in x.chunks_exact(cols) {
        let mean = reduce::sum(row) / cols as f32;
        let deviations: Vec<f32> = row.iter().map(|x| x - mean).collect();
        let variance = reduce::dot(&deviations, &deviations) / cols as f32;
        let r = 1.0 / (variance + eps).sqrt();
        let elements = deviations.iter().zip(w).enumerate();
        y.extend(elements.map(|(c, (d, w))| match b {
            Some(b) => (d * r).mul_add(*w, b[c]),
            None => (d * r) * w,
        }));
        means.push(mean);
        inverse.push(r);
    }
    [y, means, inverse]
}

/// dx `[rows, cols]`, from dy, x, w and the forward pass's mean and r: `h = (x - mean) * r`,
/// `g = dy * w`, `a = sum(g) / cols`, `c = sum(g * h) / cols`, `dx = r * fma(-h, c, g - a)`.
pub fn backward(dy: &[f32], x: &[f32], w: &[f32], means: &[f32], inverse: &[f32]) -> Vec<f32> {
    let cols = w.len();
    let mut dx = Vec::with_capacity(x.len());
    let rows = dy.chunks_exact(cols).zip(x.chunks_exact(cols));
    for ((dy, x), (mean, &r)) in rows.zip(means.iter().zip(inverse)) {
        let h: Vec<f32> = x.iter().map(|x| (x - mean) * r).collect();
        let g: Vec<f32> = dy.iter().zip(w).map(|(dy, w)| dy * w).collect();
        let a = reduce::sum(&g) / cols as f32;
        let c = reduce::dot(&g, &h) / cols as f32;
        dx.extend(g.iter().zip(&h).map(|(g, h)| r * (-h).mul_add(c, g - a)));
    }
    dx
}

/// dw `[cols]` over the rows of one atom, in order: `fma(dy, (x - mean) * r, dw)`.
pub fn weight_gradient(
    dy: &[f32],
    x: &[f32],
    means: &[f32],
    inverse: &[f32],
    cols: usize,
) -> Vec<f32> {
    let mut dw = vec![0.0f32; cols];
    let rows = dy.chunks_exact(cols).zip(x.chunks_exact(cols));
    for ((dy, x), (mean, r)) in rows.zip(means.iter().zip(inverse)) {
        for (dw, (dy, x)) in dw.iter_mut().zip(dy.iter().zip(x)) {
            *dw = dy.mul_add((x - mean) * r, *dw);
        }
    }
    dw
}
