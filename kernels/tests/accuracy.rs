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

/// One head, its shape and what it takes.
struct Head {
    tokens: usize,
    shape: AttentionShape,
    sink: Option<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_out: Vec<f32>,
}

impl Head {
    /// Queries are multiplied by `factor`.
    fn new(factor: f32, dim: usize, window: Option<u32>, soft_cap: Option<f32>) -> Self {
        let tokens = 400;
        let draw = |seed| gaussian(seed, tokens * dim);
        let shape = AttentionShape {
            heads: 1,
            kv_heads: 1,
            head_dim: dim,
            window,
            scale: 1.0 / (dim as f32).sqrt(),
            soft_cap,
        };
        Self {
            tokens,
            shape,
            sink: None,
            q: draw(3).iter().map(|v| v * factor).collect(),
            k: draw(4),
            v: draw(5),
            d_out: draw(9),
        }
    }

    /// Output and gradients of q, k, v and the sink.
    fn computed(&self) -> [Vec<f32>; 5] {
        let (device, p, shape) = (Device::cpu(1), Precision::I16, &self.shape);
        let [q, k, v, d_out] =
            [&self.q, &self.k, &self.v, &self.d_out].map(|x| tensor(x, shape.head_dim));
        let sinks = self.sink.map(|sink| tensor(&[sink], 1));
        let sinks = sinks.as_ref();
        let codes = device.attention_codes(&q, &k, &v, shape, p).unwrap();
        let out = device.attention(&codes, 1, shape, sinks, p).unwrap();
        let g = device
            .attention_backward(&codes, &out, &d_out, 1, shape, sinks, p)
            .unwrap();
        let d_sink = g.d_sinks.map_or(Vec::new(), |x| x.data().to_vec());
        let [out, dq, dk, dv] = [out.out, g.dq, g.dk, g.dv].map(|x| x.data().to_vec());
        [out, dq, dk, dv, d_sink]
    }

    /// The same, in f64.
    fn exact(&self) -> [Vec<f64>; 5] {
        let dim = self.shape.head_dim;
        let zeros = || vec![0.0; self.tokens * dim];
        let [mut out, mut dq, mut dk, mut dv] = [zeros(), zeros(), zeros(), zeros()];
        let mut d_sink = vec![0.0; usize::from(self.sink.is_some())];
        for i in 0..self.tokens {
            let at = i * dim..(i + 1) * dim;
            let (p, slopes, p_sink) = self.exact_softmax(i);
            let keys = || (self.shape.first_key(i)..=i).zip(p.iter().zip(&slopes));
            for (j, (p, _)) in keys() {
                add(&mut out[at.clone()], *p, &self.v[j * dim..][..dim]);
                add(&mut dv[j * dim..][..dim], *p, &self.d_out[at.clone()]);
            }
            let pairs = self.d_out[at.clone()].iter().zip(&out[at.clone()]);
            let delta: f64 = pairs.map(|(a, b)| f64::from(*a) * b).sum();
            for (j, (p, slope)) in keys() {
                let dp = dot(&self.d_out[at.clone()], &self.v[j * dim..][..dim]);
                let ds = p * (dp - delta) * slope * f64::from(self.shape.scale);
                add(&mut dq[at.clone()], ds, &self.k[j * dim..][..dim]);
                add(&mut dk[j * dim..][..dim], ds, &self.q[at.clone()]);
            }
            d_sink.iter_mut().for_each(|d| *d -= p_sink * delta);
        }
        [out, dq, dk, dv, d_sink]
    }

    /// Weights of the keys that query `i` sees, the slopes of the cap at their scores, and the
    /// weight of the sink.
    fn exact_softmax(&self, i: usize) -> (Vec<f64>, Vec<f64>, f64) {
        let dim = self.shape.head_dim;
        let score = |j: usize| {
            let z = dot(&self.q[i * dim..][..dim], &self.k[j * dim..][..dim]);
            let z = z * f64::from(self.shape.scale);
            let bent = self.shape.soft_cap.map(|cap| (z / f64::from(cap)).tanh());
            let capped = bent.zip(self.shape.soft_cap);
            (
                capped.map_or(z, |(bent, cap)| f64::from(cap) * bent),
                bent.map_or(1.0, |bent| 1.0 - bent * bent),
            )
        };
        let (scores, slopes): (Vec<f64>, Vec<f64>) =
            (self.shape.first_key(i)..=i).map(score).unzip();
        let sink = self.sink.map_or(f64::NEG_INFINITY, f64::from);
        let max = scores.iter().copied().fold(sink, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum::<f64>() + (sink - max).exp();
        let p = scores.iter().map(|s| (s - max).exp() / total).collect();
        (p, slopes, (sink - max).exp() / total)
    }

    fn within(&self, what: &str, [forward, backward]: [f64; 2]) {
        let names = ["output", "dq", "dk", "dv", "sink's gradient"];
        let pairs = self.computed().into_iter().zip(self.exact());
        for (name, (got, exact)) in names.iter().zip(pairs) {
            if exact.is_empty() {
                continue;
            }
            let bound = if *name == "output" { forward } else { backward };
            below(
                &format!("attention, {what}, {name}"),
                error(&got, &exact),
                bound,
            );
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

/// `sum += factor * x`.
fn add(sum: &mut [f64], factor: f64, x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += factor * f64::from(*x);
    }
}

#[test]
fn attention_of_ordinary_sharp_and_diffuse_scores() {
    for (what, factor, bounds) in [
        ("ordinary", 1.0, [2e-4, 5e-4]),
        ("sharp", 6.0, [1e-3, 2e-3]),
        ("diffuse", 0.05, [2e-4, 5e-4]),
    ] {
        Head::new(factor, 32, None, None).within(what, bounds);
    }
}

/// The cap bends most scores of the first, and hardly any of the last.
#[test]
fn attention_under_a_soft_cap() {
    for (factor, cap) in [(6.0, 2.0), (3.0, 10.0), (1.0, 50.0)] {
        let what = format!("scores x {factor} under {cap}");
        Head::new(factor, 32, None, Some(cap)).within(&what, [5e-4, 1e-3]);
    }
}

/// A sink below, among and above the scores, alone and with a cap and a window.
#[test]
fn attention_with_a_sink() {
    for (sink, window, cap) in [
        (-3.0, None, None),
        (1.5, Some(37), None),
        (9.0, None, None),
        (0.5, Some(130), Some(2.0)),
    ] {
        let mut head = Head::new(2.0, 32, window, cap);
        head.sink = Some(sink);
        head.within(&format!("sink {sink}, {window:?}, {cap:?}"), [5e-4, 1e-3]);
    }
}

/// Widths of heads that models have.
#[test]
fn attention_of_narrow_and_wide_heads() {
    for dim in [2, 20, 64, 80, 96, 100, 112, 120, 128, 160, 192, 256, 512] {
        Head::new(1.0, dim, Some(60), None).within(&format!("width {dim}"), [2e-4, 5e-4]);
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
