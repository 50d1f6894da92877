//! Every operation on every instruction set and thread count against the scalar reference, by bits.

use concord_kernels::coded::{Coded, Precision};
use concord_kernels::cpu::Cpu;
use concord_kernels::isa::Isa;
use concord_kernels::ops::{AdamStep, Atoms, AttentionShape, CodedKv};
use concord_kernels::rng::Philox;
use concord_kernels::tables::{RopeScaling, RopeTable};
use concord_kernels::{Device, Tensor};

const P: Precision = Precision::I16;

fn devices() -> Vec<Device> {
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    available
        .flat_map(|isa| [1, 2, 3].map(|n| Device::Cpu(Cpu::new(isa, n))))
        .collect()
}

/// Random values of mixed magnitude: about one in eight is far from the others or zero.
fn random(seed: u64, len: usize) -> Vec<f32> {
    let stream = Philox::new(seed, 1);
    let value = |i: u64| {
        let [a, b, ..] = stream.words(i);
        let unit = (a >> 8) as f32 / 8_388_608.0 - 1.0;
        match b % 32 {
            0 => 0.0,
            1 => -0.0,
            2 => unit * 1e-30,
            3 => unit * 40.0,
            _ => unit,
        }
    };
    (0..len as u64).map(value).collect()
}

fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(shape, random(seed, shape.iter().product())).unwrap()
}

/// Runs `op` on the reference and on every other device, and compares all bits.
fn same_bits(what: &str, op: impl Fn(&Device) -> Vec<Vec<f32>>) {
    let expected = op(&Device::Reference);
    for device in devices() {
        for (part, (got, expected)) in op(&device).iter().zip(&expected).enumerate() {
            assert_eq!(got.len(), expected.len(), "{what}, output {part}");
            let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let (got_bits, expected_bits) = (bits(got), bits(expected));
            if let Some(i) = (0..got.len()).find(|&i| got_bits[i] != expected_bits[i]) {
                let name = device.name();
                panic!(
                    "{what} on {name}: output {part}[{i}]: {} not {}",
                    got[i], expected[i]
                );
            }
        }
    }
}

#[test]
fn rmsnorm() {
    for (rows, cols) in [(1, 1), (3, 64), (5, 172), (257, 33), (2, 5_000)] {
        let (x, dy) = (tensor(1, &[rows, cols]), tensor(2, &[rows, cols]));
        let w = random(3, cols);
        same_bits("rmsnorm", |device| {
            let (y, inverse) = device.rmsnorm(&x, &w, 1e-5);
            let dx = device.rmsnorm_dx(&dy, &x, &w, &inverse);
            let atoms = Atoms::new(1, rows);
            let dw = device.rmsnorm_dw(&dy, &x, &inverse, cols, &atoms);
            [y, dx, dw]
                .map(Tensor::into_data)
                .into_iter()
                .chain([inverse])
                .collect()
        });
    }
}

#[test]
fn rope() {
    let table = RopeTable::new(16, 10_000.0, RopeScaling::None, 300);
    let positions: Vec<u32> = (0..300).rev().collect();
    same_bits("rope", |device| {
        let mut x = tensor(4, &[300, 48]);
        device.rope(&mut x, &table, &positions, false);
        let forward = x.data().to_vec();
        device.rope(&mut x, &table, &positions, true);
        vec![forward, x.into_data()]
    });
}

#[test]
fn swiglu() {
    let (g, u, dy) = (
        tensor(5, &[99, 173]),
        tensor(6, &[99, 173]),
        tensor(7, &[99, 173]),
    );
    same_bits("swiglu", |device| {
        let (dg, du) = device.swiglu_backward(&dy, &g, &u);
        vec![
            device.swiglu(&g, &u).into_data(),
            dg.into_data(),
            du.into_data(),
        ]
    });
}

#[test]
fn cross_entropy() {
    for vocab in [1, 17, 512, 9_001] {
        let logits = tensor(8, &[6, vocab]);
        let last = vocab as u32 - 1;
        let targets = [Some(0), None, Some(last), Some(last / 2), None, Some(0)];
        same_bits("cross_entropy", |device| {
            let mut p = logits.clone();
            let losses = device.cross_entropy(&mut p, &targets);
            vec![p.into_data(), losses]
        });
    }
}

#[test]
fn head_gradient() {
    let (x, w) = (tensor(9, &[300, 24]), random(10, 77 * 24));
    let targets: Vec<Option<u32>> = (0..300)
        .map(|t| (t % 5 != 0).then_some(t * 7 % 77))
        .collect();
    same_bits("head", |device| {
        let (xc, wc) = (device.code(x.data(), 24, P), device.code(&w, 24, P));
        let mut p = device.matmul(&xc, &wc);
        device.cross_entropy(&mut p, &targets);
        let dx = device.head_dx(&p, &targets, &wc, P);
        vec![dx.into_data()]
    });
}

#[test]
fn products_and_their_gradients() {
    let (x, w, dy) = (
        tensor(11, &[600, 40]),
        random(12, 56 * 40),
        tensor(13, &[600, 56]),
    );
    same_bits("matmul", |device| {
        let (xc, wc) = (
            device.code(x.data(), 40, P),
            device.code(&w, 40, Precision::I8),
        );
        let atoms = Atoms::new(2, 300);
        let y = device.matmul(&xc, &wc);
        let dx = device.matmul_dx(&dy, &wc, P);
        let dw = device.matmul_dw(&dy, &xc, &atoms, P);
        [y, dx, dw, device.bias_gradient(&dy, &atoms)]
            .map(Tensor::into_data)
            .to_vec()
    });
}

#[test]
fn adamw_and_sums() {
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
    let gradient = random(14, 40_000);
    same_bits("adamw", |device| {
        let (mut value, mut m) = (random(15, 40_000), random(16, 40_000));
        let mut v: Vec<f32> = random(17, 40_000).iter().map(|v| v.abs()).collect();
        device.adamw(&step, &gradient, &mut value, &mut m, &mut v);
        let sums = vec![device.sum(&value), device.sum_squares(&value[..4_100])];
        device.scaled_add_assign(&mut m, 0.3, &gradient);
        vec![value, m, v, sums]
    });
}

fn attention_case(tokens: usize, shape: AttentionShape) {
    let (q_width, kv_width) = (
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    );
    let scaled = |seed, width| -> Vec<f32> {
        random(seed, tokens * width)
            .iter()
            .map(|v| v * 3.0)
            .collect()
    };
    let (q, k, v) = (
        scaled(18, q_width),
        scaled(19, kv_width),
        scaled(20, kv_width),
    );
    let d_out = random(21, tokens * q_width);
    same_bits(&format!("attention {tokens} {shape:?}"), |device| {
        let codes = device.attention_codes(&q, &k, &v, &shape, P);
        let out = device.attention(&codes.queries, &codes.kv, 0, &shape, P);
        let gradients = device.attention_backward(&codes, &out, &d_out, &shape, P);
        let max: Vec<f32> = out.max.iter().map(|&m| m as f32).collect();
        let [dq, dk, dv] = [gradients.dq, gradients.dk, gradients.dv].map(Tensor::into_data);
        vec![out.out, out.sum, max, dq, dk, dv]
    });
}

#[test]
fn attention() {
    let shape = AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        window: None,
        scale: 0.35,
    };
    for tokens in [1, 5, 128, 129, 300] {
        attention_case(tokens, shape);
    }
    attention_case(
        300,
        AttentionShape {
            window: Some(24),
            ..shape
        },
    );
    attention_case(
        290,
        AttentionShape {
            window: Some(130),
            heads: 2,
            head_dim: 33,
            ..shape
        },
    );
}

/// The first `rows` rows of `coded`.
fn first_rows(coded: &Coded, rows: usize) -> Coded {
    Coded {
        rows,
        q: coded.q[..rows * coded.cols].to_vec(),
        exp: coded.exp[..rows].to_vec(),
        ..coded.clone()
    }
}

fn rows_from(coded: &Coded, start: usize, rows: usize) -> Coded {
    Coded {
        rows,
        q: coded.q[start * coded.cols..(start + rows) * coded.cols].to_vec(),
        exp: coded.exp[start..start + rows].to_vec(),
        ..coded.clone()
    }
}

/// Prefill = decode = chunks of any size, over more than one chunk of blocks.
#[test]
fn attention_does_not_see_how_the_sequence_was_cut() {
    let tokens = 1_100;
    for window in [None, Some(200)] {
        let shape = AttentionShape {
            heads: 2,
            kv_heads: 1,
            head_dim: 16,
            window,
            scale: 0.25,
        };
        let device = Device::cpu(2);
        let q = random(22, tokens * 32);
        let (k, v) = (random(23, tokens * 16), random(24, tokens * 16));
        let codes = device.attention_codes(&q, &k, &v, &shape, P);
        let whole = device.attention(&codes.queries, &codes.kv, 0, &shape, P);
        for chunk in [1, 7, 64, 129] {
            let mut out = Vec::new();
            for start in (0..tokens).step_by(chunk) {
                let count = chunk.min(tokens - start);
                let kv = CodedKv {
                    k: first_rows(&codes.kv.k, start + count),
                    v: first_rows(&codes.kv.v, start + count),
                };
                let queries = rows_from(&codes.queries, start * 2, count * 2);
                out.extend(device.attention(&queries, &kv, start, &shape, P).out);
            }
            let differs = (0..out.len()).find(|&i| out[i].to_bits() != whole.out[i].to_bits());
            assert_eq!(differs, None, "chunks of {chunk}, window {window:?}");
        }
    }
}

/// A row of a batch is the row alone.
#[test]
fn rows_do_not_see_each_other() {
    let device = Device::cpu(2);
    let (x, w) = (tensor(25, &[64, 100]), random(26, 70 * 100));
    let wc = device.code(&w, 100, P);
    let batch = device.matmul(&device.code(x.data(), 100, P), &wc);
    for (row, expected) in x
        .data()
        .chunks_exact(100)
        .zip(batch.data().chunks_exact(70))
    {
        let alone = device.matmul(&device.code(row, 100, P), &wc);
        let same = alone
            .data()
            .iter()
            .zip(expected)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same);
    }
}
