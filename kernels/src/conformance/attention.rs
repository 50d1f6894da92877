//! Attention: whole sequences, the backward pass, and keys that grow.

use super::{Case, Draw, Outputs, Size, values};
use crate::coded::Precision;
use crate::ops::{AttentionShape, CodedKv};
use crate::{Device, KernelError};

pub(super) fn cases(size: Size) -> Vec<Case> {
    let shape = AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        window: None,
        scale: 0.35,
    };
    let narrow = AttentionShape {
        window: Some(24),
        ..shape
    };
    let odd = AttentionShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 34,
        window: Some(130),
        scale: 0.2,
    };
    let mut runs = vec![
        (1, 1, shape),
        (2, 5, shape),
        (1, 128, shape),
        (2, 129, shape),
        (1, 300, narrow),
        (1, 290, odd),
    ];
    if size == Size::Full {
        let wide = |head_dim| AttentionShape {
            heads: 8,
            kv_heads: 2,
            head_dim,
            window: None,
            scale: 0.09,
        };
        runs.extend([
            (2, 512, wide(64)),
            (1, 1_300, wide(128)),
            (1, 200, wide(256)),
        ]);
    }
    let mut cases = Vec::new();
    for (sequences, tokens, shape) in runs {
        for precision in [Precision::I16, Precision::I14, Precision::I8] {
            cases.push(Case::new(
                format!("attention {sequences}x{tokens} {shape:?} {precision:?}"),
                move |device, draw| attention(device, draw, sequences, tokens, shape, precision),
            ));
        }
    }
    // Past a chunk of blocks, and cut at odd places.
    for (tokens, chunk) in [(300, 7), (140, 1), (1_100, 129)] {
        cases.push(Case::new(
            format!("attention {tokens} in chunks of {chunk}"),
            move |device, draw| cached(device, draw, tokens, chunk, odd),
        ));
    }
    cases
}

fn attention(
    device: &Device,
    draw: &Draw,
    sequences: usize,
    tokens: usize,
    shape: AttentionShape,
    precision: Precision,
) -> Result<Outputs, KernelError> {
    let (q_width, kv_width) = (
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    );
    let all = sequences * tokens;
    let place = |stream, width| device.place(draw.tensor(stream, &[all, width])?);
    let (q, k, v) = (
        place(11, q_width)?,
        place(12, kv_width)?,
        place(13, kv_width)?,
    );
    let q = device.scaled(&q, 4.0)?;
    let d_out = place(14, q_width)?;
    let codes = device.attention_codes(&q, &k, &v, &shape, precision)?;
    let out = device.attention(&codes, sequences, &shape, precision)?;
    let g = device.attention_backward(&codes, &out, &d_out, sequences, &shape, precision)?;
    let max = out.max.values()?.iter().map(|&m| m as f32).collect();
    let mut outputs = values([out.out, out.sum, g.dq, g.dk, g.dv])?;
    outputs.push(max);
    Ok(outputs)
}

/// The sequence as it grows; on the reference at once, so that both must agree with the whole.
fn cached(
    device: &Device,
    draw: &Draw,
    tokens: usize,
    chunk: usize,
    shape: AttentionShape,
) -> Result<Outputs, KernelError> {
    let chunk = match device {
        Device::Reference => tokens,
        _ => chunk,
    };
    let place = |stream, width| device.place(draw.tensor(stream, &[tokens, width])?);
    let width = shape.kv_heads * shape.head_dim;
    let (q, k, v) = (
        place(15, shape.heads * shape.head_dim)?,
        place(16, width)?,
        place(17, width)?,
    );
    let codes = device.attention_codes(&q, &k, &v, &shape, Precision::I16)?;
    let mut keys = device.new_keys(&shape, Precision::I16)?;
    let (mut outputs, mut out) = (vec![Vec::new(); 2], None);
    for start in (0..tokens).step_by(chunk) {
        let count = chunk.min(tokens - start);
        let new = |coded: &crate::coded::Coded| {
            coded.part(start * shape.kv_heads, count * shape.kv_heads)
        };
        let (k, v) = (new(&codes.kv.k), new(&codes.kv.v));
        device.append_keys(&mut keys, &CodedKv { k, v })?;
        let queries = codes.queries.part(start * shape.heads, count * shape.heads);
        let part = device.attention_cached(&queries, &keys, start, &shape, Precision::I16)?;
        outputs[0].extend_from_slice(&part.out.values()?);
        outputs[1].extend_from_slice(&part.sum.values()?);
        out = Some(part);
    }
    outputs.extend(
        out.map(|part| part.max.values().map(|m| vec![m[m.len() - 1] as f32]))
            .transpose()?,
    );
    Ok(outputs)
}
