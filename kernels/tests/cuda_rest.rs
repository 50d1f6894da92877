//! Everything but coding, products and attention on the emulated GPU, at the edges that the shapes of
//! models do not reach: against the scalar reference, by bits, in several orders of threads.
#![cfg(feature = "emulator")]

mod emulated;

use concord_kernels::coded::Precision;
use concord_kernels::conformance::{Draw, Kind};
use concord_kernels::cuda::elementwise::{Elementary, elementary};
use concord_kernels::ops::sample::Sampling;
use concord_kernels::ops::{AdamStep, Atoms};
use concord_kernels::rng::Philox;
use concord_kernels::tables::{RopeScaling, RopeTable};
use concord_kernels::{Device, KernelError, Tensor, math};
use emulated::{devices, gpus, same_bits};

type Outputs = Result<Vec<Vec<f32>>, KernelError>;

/// The elements of several tensors.
fn values(tensors: impl IntoIterator<Item = Tensor>) -> Outputs {
    tensors.into_iter().map(Tensor::into_values).collect()
}

fn draws() -> [Draw; 4] {
    Kind::ALL.map(|kind| Draw::new(5, kind))
}

fn placed(device: &Device, data: &[f32], shape: &[usize]) -> Result<Tensor, KernelError> {
    device.place(Tensor::new(shape, data.to_vec())?)
}

#[test]
fn elementary_functions_are_those_of_the_host_over_all_of_f32() {
    let gpu = &gpus()[0];
    let inputs: Vec<f32> = (0..=u32::MAX).step_by(1_009).map(f32::from_bits).collect();
    let edges = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0];
    let inputs = [
        &inputs[..],
        &edges,
        &[128.0, -150.0, 89.0, -104.0, 1_048_576.5],
    ]
    .concat();
    let ceil = |x| math::ceil_to_int(x) as f32;
    type Function = fn(f32) -> f32;
    let functions: [(Elementary, Function); 4] = [
        (Elementary::Exp2, math::exp2),
        (Elementary::Exp, math::exp),
        (Elementary::Ln, math::ln),
        (Elementary::Ceil, ceil),
    ];
    for (name, function) in functions {
        let got = elementary(gpu, name, &inputs).unwrap();
        for (&x, got) in inputs.iter().zip(got) {
            let expected = function(x);
            let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
            assert!(same, "{name:?} of {x:e}: {got:e} not {expected:e}");
        }
    }
}

#[test]
fn norms_at_the_edge_of_a_warp_and_of_a_segment() {
    for cols in [31, 32, 33, 1_024, 1_025, 4_096, 4_097, 8_193, 33_000] {
        for draw in draws() {
            let sequences = if cols < 100 { 3 } else { 1 };
            let tokens = if cols < 100 { 260 } else { 2 };
            // Two rows a token, as with a norm of each head.
            let rows = sequences * tokens * 2;
            same_bits(&format!("rmsnorm {rows}x{cols}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[rows, cols])?);
                let (x, dy) = (place(1)?, place(2)?);
                let w = device.place(draw.tensor(3, &[cols])?)?;
                let (y, inverse) = device.rmsnorm(&x, &w, 1e-6)?;
                let dx = device.rmsnorm_dx(&dy, &x, &w, &inverse)?;
                let atoms = Atoms::new(sequences, tokens);
                let dw = device.rmsnorm_dw(&dy, &x, &inverse, cols, &atoms)?;
                values([y, inverse, dx, dw])
            });
        }
    }
}

#[test]
fn sums_over_any_number_of_atoms_follow_the_tree() {
    for (sequences, len) in [
        (1, 1),
        (1, 257),
        (1, 1_030),
        (3, 512),
        (7, 3),
        (9, 300),
        (16, 1),
    ] {
        let draw = Draw::new(sequences as u64, Kind::Wide);
        same_bits(&format!("bias gradient {sequences}x{len}"), |device| {
            let dy = device.place(draw.tensor(1, &[sequences * len, 67])?)?;
            values([device.bias_gradient(&dy, &Atoms::new(sequences, len))?])
        });
    }
}

#[test]
fn sums_of_many_tensors_at_the_edge_of_a_segment() {
    let lengths = [0, 1, 32, 4_095, 4_096, 4_097, 8_192, 8_193, 140_001, 5];
    for draw in draws() {
        same_bits("sums", |device| {
            let tensors = lengths
                .iter()
                .map(|&len| device.place(draw.tensor(len as u64, &[len])?))
                .collect::<Result<Vec<_>, _>>()?;
            let sums = tensors.iter().map(|x| device.sum(x));
            let sums = sums.collect::<Result<Vec<_>, _>>()?;
            let squares = device.sum_squares(&tensors.iter().collect::<Vec<_>>())?;
            let none = device.sum_squares(&[])?;
            Ok(vec![sums, squares, none])
        });
    }
}

/// More segments than the 2,048 that one go of the ordered sum takes.
#[test]
fn a_sum_of_more_segments_than_are_staged() {
    let draw = Draw::new(1, Kind::Ordinary);
    let data = draw.numbers(1, 2_049 * 4_096 + 1);
    // The one whose last thread goes first: what it stages must not be early.
    let [expected, got] = [Device::Reference, Device::Cuda(gpus()[1].clone())].map(|device| {
        let x = placed(&device, &data, &[data.len()]).unwrap();
        device.sum(&x).unwrap()
    });
    assert_eq!(got.to_bits(), expected.to_bits(), "{got} not {expected}");
}

#[test]
fn losses_of_long_rows_and_of_rows_that_are_no_numbers() {
    for vocab in [1, 2, 511, 513, 4_097, 70_001] {
        for draw in draws() {
            same_bits(&format!("cross entropy over {vocab}"), |device| {
                let mut p = device.place(draw.tensor(1, &[3, vocab])?)?;
                let last = vocab as u32 - 1;
                let targets = device.targets(&[Some(last), None, Some(0)])?;
                let losses = device.cross_entropy(&mut p, &targets)?;
                values([p, losses])
            });
        }
    }
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = [
        [nan; 5],
        [1.0, nan, 2.0, 0.0, -1.0],
        [-inf; 5],
        [inf, 0.0, inf, 1.0, -inf],
        [-0.0, 0.0, -0.0, -0.0, -0.0],
    ];
    same_bits("cross entropy of no numbers", |device| {
        let mut p = placed(device, rows.as_flattened(), &[5, 5])?;
        let targets = device.targets(&[Some(2); 5])?;
        let losses = device.cross_entropy(&mut p, &targets)?;
        values([p, losses])
    });
}

#[test]
fn ids_and_positions_from_outside_give_nan_and_write_nothing() {
    for device in devices() {
        let table = placed(&device, &[1.0; 12], &[3, 4]).unwrap();
        let ids = device.ids(&[2, 3, u32::MAX]).unwrap();
        let rows = device.embedding(&table, &ids).unwrap();
        let rows = rows.into_values().unwrap();
        assert!(rows[..4].iter().all(|&v| v == 1.0) && rows[4..].iter().all(|v| v.is_nan()));
        let gradient = device.embedding_gradient(&table, &ids, 3).unwrap();
        let gradient = gradient.into_values().unwrap();
        assert_eq!(gradient, [[0.0; 8].as_slice(), &[1.0; 4]].concat());
        let rope = RopeTable::new(4, 10_000.0, RopeScaling::None, 2);
        let rope = device.place_rope(rope).unwrap();
        let positions = device.ids(&[1, 2, u32::MAX]).unwrap();
        let mut x = table.clone();
        device.rope(&mut x, &rope, &positions, false).unwrap();
        let x = x.into_values().unwrap();
        assert!(x[..4].iter().all(|v| v.is_finite()) && x[4..].iter().all(|v| v.is_nan()));
        let mut logits = table;
        let targets = device.ids(&[3, 4, 5_000]).unwrap();
        let losses = device.cross_entropy(&mut logits, &targets).unwrap();
        let losses = losses.into_values().unwrap();
        assert!(losses[0].is_finite() && losses[1..].iter().all(|v| v.is_nan()));
    }
}

#[test]
fn rows_of_one_id_are_added_and_taken_in_order() {
    let draw = Draw::new(3, Kind::Wide);
    for (tokens, hidden, vocab) in [(1, 1, 1), (70, 33, 1), (513, 300, 40), (66_000, 2, 3)] {
        same_bits(
            &format!("rows of ids {tokens}x{hidden} of {vocab}"),
            |device| {
                let dy = device.place(draw.tensor(1, &[tokens, hidden])?)?;
                let ids = device.ids(&draw.ids(2, tokens, vocab as u32))?;
                let gradient = device.embedding_gradient(&dy, &ids, vocab)?;
                let before = device.place(draw.tensor(3, &[vocab, hidden])?)?;
                let mut dw = before.clone();
                let targets = device.targets(&draw.targets(4, tokens, vocab as u32))?;
                device.take_targets(&mut dw, &dy, &targets)?;
                values([gradient, before, dw])
            },
        );
    }
}

/// A weight with a row of zeros and one that holds an infinity among its codes.
#[test]
fn decoded_rows_are_taken_off_as_the_reference_does() {
    for draw in draws() {
        same_bits("head_dx", |device| {
            let mut w = draw.numbers(1, 6 * 40);
            w[40..80].fill(-0.0);
            w[80] = f32::INFINITY;
            let w = placed(device, &w, &[6, 40])?;
            let w = device.code(&w, 40, Precision::I16)?;
            let p = device.place(draw.tensor(2, &[7, 6])?)?;
            let targets = [Some(0), Some(1), Some(2), None, Some(0), Some(5), Some(3)];
            let targets = device.targets(&targets)?;
            values([device.head_dx(&p, &targets, &w, Precision::I16)?])
        });
    }
}

#[test]
fn adamw_on_hostile_numbers() {
    let step = AdamStep {
        gradient_scale: 0.125,
        learning_rate: 3e-4,
        beta1: 0.9,
        beta2: 0.95,
        bias1: 0.19,
        bias2: 0.0975,
        epsilon: 1e-8,
        weight_decay: 0.1,
    };
    for draw in draws() {
        for len in [0, 1, 255, 257, 70_001] {
            same_bits(&format!("adamw {len}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[len])?);
                let (gradient, mut value, mut m) = (place(1)?, place(2)?, place(3)?);
                // Negative second moments: their root is no number.
                let mut v = place(4)?;
                device.adamw(&step, &gradient, &mut value, &mut m, &mut v)?;
                values([value, m, v])
            });
        }
    }
}

#[test]
fn elementwise_operations_on_hostile_numbers() {
    for draw in draws() {
        // The last has more rows than a grid has blocks.
        for (rows, cols) in [(1, 1), (3, 255), (2, 257), (66_000, 2)] {
            same_bits(&format!("elementwise {rows}x{cols}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[rows, cols])?);
                let (a, b, c) = (place(1)?, place(2)?, place(3)?);
                let bias = device.place(draw.tensor(4, &[cols])?)?;
                let y = device.swiglu(&a, &b)?;
                let (dg, du) = device.swiglu_backward(&c, &a, &b)?;
                let scaled = device.scaled(&a, 1e-20)?;
                let (mut sum, mut fused) = (a.clone(), a.clone());
                device.add_assign(&mut sum, &b)?;
                device.scaled_add_assign(&mut fused, -0.7, &b)?;
                device.add_bias(&mut sum, &bias)?;
                values([y, dg, du, scaled, sum, fused, a])
            });
        }
    }
}

#[test]
fn the_first_number_that_is_none_is_named() {
    for device in devices() {
        for (len, bad) in [(1, 0), (300, 299), (70_000, 65_537), (70_000, 3)] {
            let mut data = vec![-0.0f32; len];
            data[bad..].fill(f32::NAN);
            data[bad] = f32::NEG_INFINITY;
            let mut fine = placed(&device, &[-0.0, 1.0, -0.0], &[3]).unwrap();
            let mut broken = placed(&device, &data, &[len]).unwrap();
            let mut other = broken.clone();
            let mut list = [
                ("fine", &mut fine),
                ("broken", &mut broken),
                ("other", &mut other),
            ];
            let error = device.canonicalise(&mut list).unwrap_err();
            let expected = format!("broken: element {bad} is -inf: not a finite number");
            assert_eq!(error.to_string(), expected);
            let fine = fine.into_values().unwrap();
            let fine: Vec<u32> = fine.iter().map(|v| v.to_bits()).collect();
            assert_eq!(fine, [0, 0x3f80_0000, 0]);
        }
        assert!(device.canonicalise(&mut []).is_ok());
    }
}

#[test]
fn tokens_are_drawn_as_the_host_draws_them() {
    let draw = Draw::new(9, Kind::Ordinary);
    for vocab in [1, 2, 31, 33, 1_023, 1_025, 5_003] {
        let spread: Vec<f32> = draw.numbers(1, vocab).iter().map(|v| v * 6.0).collect();
        // Few values, so that most are tied; and all of them tied.
        let tied = spread.iter().map(|v| v.round_ties_even()).collect();
        let equal = vec![-2.5; vocab];
        let small = spread.iter().map(|v| v * 1e-4).collect();
        for logits in [spread.clone(), tied, equal, small] {
            same_bits(&format!("sampling from {vocab}"), |device| {
                let logits = placed(device, &logits, &[1, vocab])?;
                let mut tokens = Vec::new();
                for (temperature, top_k, top_p) in [
                    (0.0, 0, 1.0),
                    (1.0, 0, 1.0),
                    (0.8, 40, 0.95),
                    (1.5, 1_024, 1e-9),
                    (0.1, 1, 1.0),
                    (2.0, usize::MAX, 0.5),
                ] {
                    for seed in [1, u64::MAX] {
                        let sampling = Sampling {
                            temperature,
                            top_k,
                            top_p,
                            seed,
                        };
                        tokens.push(device.sample(&logits, &sampling, seed / 3)? as f32);
                    }
                }
                Ok(vec![tokens])
            });
        }
    }
}

/// Tickets that meet the sum of some candidates exactly: the next one is drawn.
#[test]
fn a_ticket_on_the_edge_of_two_candidates_draws_the_second() {
    let sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        seed: 3,
    };
    let stream = Philox::new(sampling.seed, 0);
    let on_edge = |&position: &u64| (stream.unit(position) * 4_096.0).fract() == 0.0;
    let positions: Vec<u64> = (0..).filter(on_edge).take(3).collect();
    same_bits("tickets on an edge", |device| {
        let logits = placed(device, &[0.0; 4_096], &[1, 4_096])?;
        let tokens = positions
            .iter()
            .map(|&position| Ok(device.sample(&logits, &sampling, position)? as f32))
            .collect::<Result<Vec<f32>, KernelError>>()?;
        Ok(vec![tokens])
    });
}

#[test]
fn the_most_probable_token_among_numbers_that_are_none() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = [
        vec![nan, 3.0, 5.0],
        vec![1.0, nan, 5.0, nan, 5.0],
        vec![-inf; 40],
        vec![0.0, -0.0, 0.0],
        vec![-inf, -1.0, inf, inf],
    ];
    let greedy = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 0,
    };
    for row in rows {
        same_bits("the most probable token", |device| {
            let logits = placed(device, &row, &[1, row.len()])?;
            Ok(vec![vec![device.sample(&logits, &greedy, 0)? as f32]])
        });
    }
}

/// The digest as the library gives it.
fn expected_digest(data: &[f32], key: &[u8; 32], prefix: &[u8]) -> [u8; 32] {
    let x = Tensor::new(&[data.len()], data.to_vec()).unwrap();
    x.derived_digest(key, prefix).unwrap()
}

fn check_digest(device: &Device, data: &[f32], prefix: usize) {
    let key = blake3::hazmat::hash_derive_key_context("a test of digests on a GPU");
    let prefix: Vec<u8> = (0..prefix).map(|i| (i * 31 + 7) as u8).collect();
    let x = placed(device, data, &[data.len()]).unwrap();
    let got = x.derived_digest(&key, &prefix).unwrap();
    let expected = expected_digest(data, &key, &prefix);
    let (len, bytes) = (data.len(), prefix.len());
    assert_eq!(got, expected, "{len} elements after {bytes} bytes");
}

#[test]
fn digests_of_every_length_up_to_5_000_bytes() {
    let data = Draw::new(11, Kind::Wide).numbers(1, 1_250);
    let device = Device::Cuda(gpus()[0].clone());
    (0..=1_250).for_each(|len| check_digest(&device, &data[..len], len * 7 % 101));
}

#[test]
fn digests_after_every_prefix_up_to_100_bytes() {
    let data = Draw::new(12, Kind::Wide).numbers(1, 1_250);
    let device = Device::Cuda(gpus()[0].clone());
    for prefix in 0..=100 {
        for len in [0, 1, 239, 240, 255, 256, 257, 495, 512, 768] {
            check_digest(&device, &data[..len], prefix);
        }
    }
    check_digest(&device, &data, 3_000);
}

/// A view of a tensor starts at any element; trees of one, two and three levels of blocks.
#[test]
fn digests_of_megabytes() {
    let data = Draw::new(13, Kind::Wide).numbers(1, 1_300_000);
    for device in devices() {
        for (len, prefix) in [
            (65_535, 4),
            (65_536, 0),
            (65_536, 1),
            (131_072, 0),
            (300_001, 77),
        ] {
            check_digest(&device, &data[..len], prefix);
        }
        let x = placed(&device, &data[..4_000], &[4_000, 1]).unwrap();
        let part = x.rows(1_001, 2_100).derived_digest(&[9; 32], b"x").unwrap();
        assert_eq!(part, expected_digest(&data[1_001..3_101], &[9; 32], b"x"));
    }
    check_digest(&Device::Cuda(gpus()[0].clone()), &data, 50);
}
