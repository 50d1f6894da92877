//! Errors against f64: not of bits, but of size. The bounds are those of NUMERICS.md's formats.

use concord_kernels::coded::Precision;
use concord_kernels::ops::AttentionShape;
use concord_kernels::rng::Philox;
use concord_kernels::{Device, Tensor};

/// Values that are roughly Gaussian: sums of four uniforms.
fn gaussian(seed: u64, len: usize) -> Vec<f32> {
    let stream = Philox::new(seed, 0);
    let value = |i: u64| {
        stream
            .words(i)
            .iter()
            .map(|w| (w >> 8) as f32 / 8_388_608.0 - 1.0)
            .sum()
    };
    (0..len as u64).map(value).collect()
}

/// Relative Frobenius error.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    let (mut error, mut norm) = (0.0, 0.0);
    for (got, exact) in got.iter().zip(exact) {
        error += (f64::from(*got) - exact).powi(2);
        norm += exact.powi(2);
    }
    (error / norm).sqrt()
}

fn below(what: &str, error: f64, bound: f64) {
    println!("{what}: {error:.1e}, at most {bound:.1e}");
    assert!(error <= bound, "{what}: {error:e} above {bound:e}");
}

/// Rows of `cols`.
fn tensor(elements: &[f32], cols: usize) -> Tensor {
    Tensor::new(&[elements.len() / cols, cols], elements.to_vec()).unwrap()
}

#[test]
fn products_of_each_precision() {
    let (m, n, k) = (24, 24, 4_096);
    let device = Device::cpu(1);
    let (x, w) = (gaussian(1, m * k), gaussian(2, n * k));
    let mut exact = vec![0.0; m * n];
    for (i, sum) in exact.iter_mut().enumerate() {
        let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
        *sum = x
            .iter()
            .zip(w)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum();
    }
    for (precision, bound) in [
        (Precision::I16, 1e-4),
        (Precision::I14, 4e-4),
        (Precision::I8, 3e-2),
    ] {
        let code = |x: &[f32]| device.code(&tensor(x, k), k, precision).unwrap();
        let y = device.matmul(&code(&x), &code(&w)).unwrap();
        below(
            &format!("product, {precision:?}"),
            error(y.data(), &exact),
            bound,
        );
    }
}

#[test]
fn attention_of_ordinary_sharp_and_diffuse_scores() {
    let (tokens, dim) = (400, 32);
    let shape = AttentionShape {
        heads: 1,
        kv_heads: 1,
        head_dim: dim,
        window: None,
        scale: 1.0 / (dim as f32).sqrt(),
        soft_cap: None,
    };
    let device = Device::cpu(1);
    for (what, factor, bound) in [
        ("ordinary", 1.0, 2e-4),
        ("sharp", 6.0, 1e-3),
        ("diffuse", 0.05, 2e-4),
    ] {
        let q: Vec<f32> = gaussian(3, tokens * dim)
            .iter()
            .map(|v| v * factor)
            .collect();
        let (k, v) = (gaussian(4, tokens * dim), gaussian(5, tokens * dim));
        let [tq, tk, tv] = [&q, &k, &v].map(|x| tensor(x, dim));
        let p = Precision::I16;
        let codes = device.attention_codes(&tq, &tk, &tv, &shape, p).unwrap();
        let out = device.attention(&codes, 1, &shape, None, p).unwrap();
        let exact = attention_f64(&q, &k, &v, tokens, dim);
        below(
            &format!("attention, {what}"),
            error(out.out.data(), &exact),
            bound,
        );
    }
}

fn attention_f64(q: &[f32], k: &[f32], v: &[f32], tokens: usize, dim: usize) -> Vec<f64> {
    let mut out = vec![0.0; tokens * dim];
    for i in 0..tokens {
        let score = |j: usize| -> f64 {
            let pairs = q[i * dim..][..dim].iter().zip(&k[j * dim..][..dim]);
            pairs
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum::<f64>()
                / (dim as f64).sqrt()
        };
        let scores: Vec<f64> = (0..=i).map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (j, weight) in weights.iter().enumerate() {
            for d in 0..dim {
                out[i * dim + d] += weight / total * f64::from(v[j * dim + d]);
            }
        }
    }
    out
}

#[test]
fn what_stays_in_floats_is_as_good_as_f32() {
    let device = Device::cpu(1);
    let cols = 3_000;
    let x = Tensor::new(&[2, cols], gaussian(6, 2 * cols)).unwrap();
    let w = vec![1.0; cols];
    let (y, _) = device.rmsnorm(&x, &tensor(&w, cols), 1e-6).unwrap();
    let exact = x.data().chunks(cols).flat_map(|row| {
        let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / cols as f64;
        row.iter()
            .map(move |v| f64::from(*v) / (mean + 1e-6).sqrt())
    });
    below("rmsnorm", error(y.data(), &exact.collect::<Vec<_>>()), 2e-7);

    let (g, u) = (gaussian(7, cols), gaussian(8, cols));
    let y = device.swiglu(&tensor(&g, cols), &tensor(&u, cols)).unwrap();
    let silu = |g: f64| g / (1.0 + (-g).exp());
    let exact = g
        .iter()
        .zip(&u)
        .map(|(g, u)| silu(f64::from(*g)) * f64::from(*u));
    below("swiglu", error(y.data(), &exact.collect::<Vec<_>>()), 2e-7);

    let mut logits = tensor(&g, cols);
    let target = device.targets(&[Some(17)]).unwrap();
    let losses = device.cross_entropy(&mut logits, &target).unwrap();
    let total: f64 = g.iter().map(|v| f64::from(*v).exp()).sum();
    below(
        "cross-entropy",
        error(losses.data(), &[total.ln() - f64::from(g[17])]),
        1e-6,
    );
    let exact: Vec<f64> = g.iter().map(|v| f64::from(*v).exp() / total).collect();
    below("probabilities", error(logits.data(), &exact), 1e-6);
}
