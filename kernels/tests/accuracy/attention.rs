//! Attention of one head, both ways, against f64.

use concord_kernels::Device;
use concord_kernels::coded::Precision;
use concord_kernels::ops::{Atoms, AttentionShape};

use crate::{below, error, gaussian, tensor};

/// One head, its shape and what it takes.
struct Head {
    tokens: usize,
    shape: AttentionShape,
    sink: Option<f32>,
    key_values: Precision,
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
            key_values: Precision::I16,
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
        let codes = device.attention_codes(&q, &k, &v, shape, p, self.key_values);
        let codes = codes.unwrap();
        let one = codes.as_one(shape);
        let out = device.attention(&codes, &one, shape, sinks, p).unwrap();
        let g = device
            .attention_backward(
                &codes,
                &out,
                &d_out,
                (&one, &Atoms::of(one.clone())),
                shape,
                sinks,
                p,
            )
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

/// The output over keys and values in codes of 8 bits: their error is that of a number within a row
/// whose largest is 64 to 127 steps, and a sharp softmax takes that of the scores as well.
#[test]
fn attention_over_keys_and_values_of_8_bits() {
    for (what, factor, dim, bound) in [
        ("ordinary", 1.0, 64, 1.5e-2),
        ("sharp", 6.0, 64, 4e-2),
        ("diffuse", 0.05, 128, 1.5e-2),
    ] {
        let mut head = Head::new(factor, dim, None, None);
        head.key_values = Precision::I8;
        let (got, exact) = (&head.computed()[0], &head.exact()[0]);
        let what = format!("attention over 8 bits, {what}, output");
        below(&what, error(got, exact), bound);
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
