//! The size of errors against f64. The bounds follow from the formats of NUMERICS.md.

use concord_kernels::coded::Precision;
use concord_kernels::ops::{Activation, Atoms};
use concord_kernels::rng::Philox;
use concord_kernels::{Device, Tensor};

mod attention;

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

/// `erf(x)` by its series, whose terms all have the sign of x.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// An activation in f64.
fn activation_f64(act: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    match act {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => 0.5 * x * (1.0 + inner.tanh()),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::ClampedSwiglu { alpha, limit } => {
            let x = x.min(f64::from(limit));
            x * sigmoid(f64::from(alpha) * x)
        }
    }
}

#[test]
fn activations_and_their_slopes() {
    let device = Device::cpu(1);
    let cols = 3_000;
    let (g, u, dy) = (gaussian(21, cols), gaussian(22, cols), gaussian(23, cols));
    let x: Vec<f32> = g.iter().map(|v| v * 2.0).collect();
    let [tx, tu, tdy] = [&x, &u, &dy].map(|x| tensor(x, cols));
    let clamped = Activation::ClampedSwiglu {
        alpha: 1.702,
        limit: 1.5,
    };
    for act in [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::ReluSquared,
        clamped,
    ] {
        let name = format!("{act:?}");
        let value = |x: &f32| activation_f64(act, f64::from(*x));
        // The slope, as a quotient of differences.
        let slope = |x: &f32| {
            let (x, step) = (f64::from(*x), 1e-6);
            (activation_f64(act, x + step) - activation_f64(act, x - step)) / (2.0 * step)
        };
        let up = |u: &f32| match act {
            Activation::ClampedSwiglu { limit, .. } => f64::from(u.clamp(-limit, limit)) + 1.0,
            _ => f64::from(*u),
        };
        let up_slope = |u: &f32| match act {
            Activation::ClampedSwiglu { limit, .. } if u.abs() > limit => 0.0,
            _ => 1.0,
        };
        let exact: Vec<f64> = x.iter().map(value).collect();
        let y = device.activation(&tx, act).unwrap();
        below(&name, error(y.data(), &exact), 3e-7);
        let exact: Vec<f64> = x
            .iter()
            .zip(&dy)
            .map(|(x, dy)| slope(x) * f64::from(*dy))
            .collect();
        let dx = device.activation_backward(&tdy, &tx, act).unwrap();
        below(&format!("{name}, slope"), error(dx.data(), &exact), 1e-6);
        let exact: Vec<f64> = x.iter().zip(&u).map(|(x, u)| value(x) * up(u)).collect();
        let y = device.gated(&tx, &tu, act).unwrap();
        below(&format!("{name}, gated"), error(y.data(), &exact), 3e-7);
        let (dg, du) = device.gated_backward(&tdy, &tx, &tu, act).unwrap();
        let all = || x.iter().zip(&u).zip(dy.iter().map(|dy| f64::from(*dy)));
        let exact: Vec<f64> = all().map(|((x, u), dy)| dy * up(u) * slope(x)).collect();
        below(&format!("{name}, dg"), error(dg.data(), &exact), 1e-6);
        let exact: Vec<f64> = all()
            .map(|((x, u), dy)| dy * up_slope(u) * value(x))
            .collect();
        below(&format!("{name}, du"), error(du.data(), &exact), 3e-7);
    }
}

#[test]
fn soft_caps() {
    let device = Device::cpu(1);
    let (cols, cap) = (3_000, 1.5f32);
    let (x, dy) = (gaussian(24, cols), gaussian(25, cols));
    let y = device.soft_cap(&tensor(&x, cols), cap).unwrap();
    let t = |x: &f32| (f64::from(*x) / f64::from(cap)).tanh();
    let exact: Vec<f64> = x.iter().map(|x| f64::from(cap) * t(x)).collect();
    below("soft cap", error(y.data(), &exact), 2e-7);
    let dx = device
        .soft_cap_backward(&tensor(&dy, cols), &y, cap)
        .unwrap();
    let pairs = x.iter().zip(&dy);
    let exact: Vec<f64> = pairs
        .map(|(x, dy)| f64::from(*dy) * (1.0 - t(x).powi(2)))
        .collect();
    below("soft cap, dx", error(dx.data(), &exact), 3e-7);
}

#[test]
fn layer_norms_far_from_zero() {
    let device = Device::cpu(1);
    let (rows, cols, eps) = (3, 3_000, 1e-5);
    // A mean of 50 deviations: one pass over squares would lose 3 digits more.
    let x: Vec<f32> = gaussian(26, rows * cols).iter().map(|v| v + 50.0).collect();
    let (w, b, dy) = (
        gaussian(27, cols),
        gaussian(28, cols),
        gaussian(29, rows * cols),
    );
    let [tx, tw, tb, tdy] = [&x, &w, &b, &dy].map(|x| tensor(x, cols));
    let (y, mean, inverse) = device.layernorm(&tx, &tw, Some(&tb), eps).unwrap();
    let (mut exact_y, mut exact_dx, mut exact_dw) = (Vec::new(), Vec::new(), vec![0.0; cols]);
    for (x, dy) in x.chunks(cols).zip(dy.chunks(cols)) {
        let n = cols as f64;
        let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let squares = x.iter().map(|v| (f64::from(*v) - mean).powi(2));
        let r = 1.0 / (squares.sum::<f64>() / n + f64::from(eps)).sqrt();
        let h: Vec<f64> = x.iter().map(|v| (f64::from(*v) - mean) * r).collect();
        let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (w, b, dy) = (wide(&w), wide(&b), wide(dy));
        let g: Vec<f64> = dy.iter().zip(&w).map(|(dy, w)| dy * w).collect();
        let a = g.iter().sum::<f64>() / n;
        let c = g.iter().zip(&h).map(|(g, h)| g * h).sum::<f64>() / n;
        exact_y.extend(h.iter().zip(w.iter().zip(&b)).map(|(h, (w, b))| h * w + b));
        exact_dx.extend(g.iter().zip(&h).map(|(g, h)| r * (g - a - h * c)));
        let columns = exact_dw.iter_mut().zip(dy.iter().zip(&h));
        columns.for_each(|(dw, (dy, h))| *dw += dy * h);
    }
    below("layernorm", error(y.data(), &exact_y), 4e-6);
    let dx = device
        .layernorm_dx(&tdy, &tx, &tw, &mean, &inverse)
        .unwrap();
    below("layernorm, dx", error(dx.data(), &exact_dx), 4e-6);
    let atoms = Atoms::new(1, rows);
    let dw = device
        .layernorm_dw(&tdy, &tx, &mean, &inverse, cols, &atoms)
        .unwrap();
    below("layernorm, dw", error(dw.data(), &exact_dw), 4e-6);
}

/// The gradients of a head whose logits are capped, against those of f64 on the same numbers.
#[test]
fn a_capped_head() {
    let device = Device::cpu(1);
    let (tokens, hidden, vocab, cap) = (40, 48, 90, 3.0f32);
    let (x, w) = (gaussian(30, tokens * hidden), gaussian(31, vocab * hidden));
    let targets: Vec<_> = (0..tokens)
        .map(|t| (t % 7 != 0).then_some(t as u32 * 2))
        .collect();
    let (tx, tw) = (tensor(&x, hidden), tensor(&w, hidden));
    let p = Precision::I16;
    let [xc, wc] = [&tx, &tw].map(|x| device.code(x, hidden, p).unwrap());
    let logits = device
        .soft_cap(&device.matmul(&xc, &wc).unwrap(), cap)
        .unwrap();
    let ids = device.targets(&targets).unwrap();
    let mut probabilities = logits.clone();
    let losses = device.cross_entropy(&mut probabilities, &ids).unwrap();
    let shares = device.soft_cap_targets(&logits, &ids, cap).unwrap();
    let d_logits = device
        .soft_cap_backward(&probabilities, &logits, cap)
        .unwrap();
    let dx = device
        .head_dx(&d_logits, &ids, &wc, p, Some(&shares))
        .unwrap();
    let mut dw = device
        .matmul_dw(&d_logits, &xc, &Atoms::new(1, tokens), p)
        .unwrap();
    device
        .take_targets(&mut dw, &tx, &ids, Some(&shares))
        .unwrap();

    let (mut exact_dx, mut exact_dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    let mut exact_losses = vec![0.0; tokens];
    for (t, target) in targets.iter().enumerate() {
        let Some(target) = target.map(|target| target as usize) else {
            continue;
        };
        let row = &x[t * hidden..][..hidden];
        let dot = |v: usize| -> f64 {
            let pairs = row.iter().zip(&w[v * hidden..][..hidden]);
            pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let tanh: Vec<f64> = (0..vocab)
            .map(|v| (dot(v) / f64::from(cap)).tanh())
            .collect();
        let powers: Vec<f64> = tanh.iter().map(|t| (f64::from(cap) * t).exp()).collect();
        let total: f64 = powers.iter().sum();
        exact_losses[t] = (total / powers[target]).ln();
        for v in 0..vocab {
            let one = f64::from(u8::from(v == target));
            let d = (powers[v] / total - one) * (1.0 - tanh[v].powi(2));
            for i in 0..hidden {
                exact_dx[t * hidden + i] += d * f64::from(w[v * hidden + i]);
                exact_dw[v * hidden + i] += d * f64::from(row[i]);
            }
        }
    }
    below(
        "capped head, losses",
        error(losses.data(), &exact_losses),
        1e-4,
    );
    below("capped head, dx", error(dx.data(), &exact_dx), 5e-4);
    below("capped head, dw", error(dw.data(), &exact_dw), 5e-4);
}
