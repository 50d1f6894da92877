//! Attention at the edges that the shapes of models do not reach.

use concord_kernels::coded::Precision;
use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::cuda::emulator::EmulatorOptions;
use concord_kernels::cuda::{Arch, Cuda};
use concord_kernels::ops::{Atoms, AttentionCodes, AttentionShape, Lengths};
use concord_kernels::{Device, KernelError, Tensor};

use crate::gpus::{OutputsOrError, same_bits};

pub(super) const P: Precision = Precision::I16;

pub(super) fn shape(
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<u32>,
) -> AttentionShape {
    AttentionShape {
        heads,
        kv_heads,
        head_dim,
        window,
        scale: 1.0 / (head_dim as f32).sqrt(),
        soft_cap: None,
    }
}

/// q, k, v and the gradient of the output of `tokens` tokens.
pub(super) struct SequenceInput {
    q: Vec<f32>,
    pub(super) k: Vec<f32>,
    v: Vec<f32>,
    d_out: Vec<f32>,
}

impl SequenceInput {
    fn new(draw: &CaseInput, tokens: usize, shape: &AttentionShape) -> Self {
        let (q_len, kv_len) = (
            tokens * shape.heads * shape.head_dim,
            tokens * shape.kv_heads * shape.head_dim,
        );
        Self {
            q: draw.numbers(1, q_len),
            k: draw.numbers(2, kv_len),
            v: draw.numbers(3, kv_len),
            d_out: draw.numbers(4, q_len),
        }
    }

    pub(super) fn ordinary(tokens: usize, shape: &AttentionShape) -> Self {
        let draw = CaseInput::new(9, InputKind::Ordinary);
        let mut input = Self::new(&draw, tokens, shape);
        // Scores of unlike size, so that maxima and exponents move from block to block.
        input.q.iter_mut().for_each(|q| *q *= 3.0);
        input
    }

    pub(super) fn codes(
        &self,
        device: &Device,
        shape: &AttentionShape,
        precision: Precision,
    ) -> Result<AttentionCodes, KernelError> {
        let (q_width, kv_width) = (
            shape.heads * shape.head_dim,
            shape.kv_heads * shape.head_dim,
        );
        device.attention_codes(
            &placed(device, &self.q, q_width)?,
            &placed(device, &self.k, kv_width)?,
            &placed(device, &self.v, kv_width)?,
            shape,
            precision,
            precision,
        )
    }
}

fn placed(device: &Device, data: &[f32], width: usize) -> Result<Tensor, KernelError> {
    device.place(Tensor::new(&[data.len() / width, width], data.to_vec())?)
}

/// Forward and backward of coded input.
fn both_ways(
    device: &Device,
    codes: &AttentionCodes,
    d_out: &[f32],
    sequences: usize,
    shape: &AttentionShape,
) -> OutputsOrError {
    let precision = codes.queries.precision;
    let d_out = placed(device, d_out, shape.heads * shape.head_dim)?;
    let documents = Lengths::uniform(sequences, codes.as_one(shape).tokens() / sequences);
    let out = device.attention(codes, &documents, shape, None, precision)?;
    let over = (&documents, &Atoms::of(documents.clone()));
    let g = device.attention_backward(codes, &out, &d_out, over, shape, None, precision)?;
    let max = out.max.values()?.iter().map(|&m| m as f32).collect();
    let tensors = [out.out, out.sum, g.dq, g.dk, g.dv];
    let mut outputs: Vec<Vec<f32>> = Vec::new();
    for tensor in tensors {
        outputs.push(tensor.into_values()?);
    }
    outputs.push(max);
    Ok(outputs)
}

fn whole(input: &SequenceInput, sequences: usize, shape: &AttentionShape, precision: Precision) {
    let tokens = input.q.len() / (shape.heads * shape.head_dim) / sequences;
    same_bits(
        &format!("{sequences}x{tokens} {shape:?} {precision:?}"),
        |device| {
            let codes = input.codes(device, shape, precision)?;
            both_ways(device, &codes, &input.d_out, sequences, shape)
        },
    );
}

/// Lengths around tiles and blocks, groups that do and do not divide a tile, narrow and wide heads.
#[test]
fn sequences_of_every_shape() {
    let cases = [
        (1, 1, shape(1, 1, 2, None)),
        (3, 2, shape(2, 1, 4, None)),
        (1, 31, shape(3, 1, 6, None)),
        (2, 33, shape(5, 1, 33, None)),
        (1, 127, shape(2, 2, 64, None)),
        (1, 128, shape(4, 2, 66, None)),
        (2, 129, shape(6, 2, 8, None)),
        (1, 257, shape(3, 1, 10, None)),
        (1, 300, shape(2, 2, 128, None)),
        (1, 40, shape(2, 1, 200, None)),
    ];
    for (sequences, tokens, shape) in cases {
        let input = SequenceInput::ordinary(sequences * tokens, &shape);
        whole(&input, sequences, &shape, P);
    }
}

#[test]
fn every_precision() {
    let shape = shape(4, 2, 16, None);
    let input = SequenceInput::ordinary(2 * 150, &shape);
    for precision in [Precision::I8, Precision::I14, P] {
        whole(&input, 2, &shape, precision);
    }
}

#[test]
fn windows() {
    for window in [1, 2, 31, 100, 128, 129, 1_000] {
        let shape = shape(3, 1, 8, Some(window));
        whole(&SequenceInput::ordinary(2 * 290, &shape), 2, &shape, P);
    }
}

#[test]
fn hostile_numbers() {
    for kind in [InputKind::Wide, InputKind::Tiny, InputKind::Huge] {
        for window in [None, Some(90)] {
            let shape = shape(2, 1, 8, window);
            let input = SequenceInput::new(&CaseInput::new(3, kind), 200, &shape);
            whole(&input, 1, &shape, P);
            whole(&input, 1, &shape, Precision::I8);
        }
    }
}

/// Rows of zeros are ignored in a block; a NaN spreads exactly as far as in the reference.
#[test]
fn empty_and_poisoned_rows() {
    let shape = shape(2, 1, 8, None);
    let zeros = |x: &mut [f32], token: usize, width: usize| {
        x[token * width..(token + 1) * width].fill(0.0);
    };
    let mut input = SequenceInput::ordinary(200, &shape);
    for token in [0, 5, 130, 199] {
        zeros(&mut input.q, token, 16);
        zeros(&mut input.d_out, 199 - token, 16);
        zeros(&mut input.k, token, 8);
        zeros(&mut input.v, token, 8);
    }
    whole(&input, 1, &shape, P);
    input.d_out.fill(0.0);
    whole(&input, 1, &shape, P);
    for poison in [f32::NAN, f32::INFINITY] {
        for part in 0..4 {
            let mut input = SequenceInput::ordinary(200, &shape);
            let x = [&mut input.q, &mut input.k, &mut input.v, &mut input.d_out];
            x.into_iter().nth(part).unwrap()[8 * 150 + 3] = poison;
            whole(&input, 1, &shape, P);
        }
    }
}

/// Products of codes of different precisions.
#[test]
fn keys_of_fewer_bits_than_queries() {
    let shape = shape(2, 1, 16, None);
    let input = SequenceInput::ordinary(140, &shape);
    same_bits("mixed precisions", |device| {
        let codes = input.codes(device, &shape, P)?;
        let kv = input.codes(device, &shape, Precision::I8)?.kv;
        both_ways(
            device,
            &AttentionCodes { kv, ..codes },
            &input.d_out,
            1,
            &shape,
        )
    });
}

/// More multiprocessors cut keys more finely: the same bits, and one sink however many cuts.
#[test]
fn the_number_of_multiprocessors_does_not_matter() {
    let plain = shape(2, 1, 8, None);
    let capped = AttentionShape {
        soft_cap: Some(2.0),
        ..shape(2, 1, 6, Some(1_500))
    };
    for (shape, sinks) in [(plain, None), (capped, Some([1.0, -2.5]))] {
        let input = SequenceInput::ordinary(2_100, &shape);
        let run = |device: &Device| -> Vec<Vec<f32>> {
            let codes = input.codes(device, &shape, P).unwrap();
            let sinks = sinks.map(|sinks| placed(device, &sinks, 2).unwrap());
            let out = device.attention(&codes, &codes.as_one(&shape), &shape, sinks.as_ref(), P);
            let out = out.unwrap();
            vec![
                out.out.into_values().unwrap(),
                out.sum.into_values().unwrap(),
            ]
        };
        let expected = run(&Device::cpu(2));
        for multiprocessors in [1, 10_000] {
            let got = run(&Device::Cuda(Cuda::emulated(EmulatorOptions {
                arch: Arch(61),
                multiprocessors,
                ..EmulatorOptions::default()
            })));
            let first = concord_kernels::conformance::difference(&got, &expected);
            assert_eq!(
                first, None,
                "{shape:?} on {multiprocessors} multiprocessors"
            );
        }
    }
}
