//! Attention over keys and values that grow.

use super::attention::{sinks_of, variants};
use super::{CaseInput, OperationCase, Outputs};
use crate::coded::{Coded, Precision};
use crate::reference::attention::{AttentionShape, CodedKv};
use crate::{Device, KernelError};

pub(super) fn cases() -> Vec<OperationCase> {
    let shape = AttentionShape {
        heads: 2,
        kv_heads: 1,
        head_dim: 34,
        window: Some(130),
        scale: 0.2,
        soft_cap: None,
    };
    // Past a chunk of blocks, and cut at odd places.
    let mut runs = vec![
        (300, 7, shape, false),
        (140, 1, shape, false),
        (1_100, 129, shape, false),
    ];
    let others = variants().into_iter().zip([1_050, 5, 45, 33, 29, 3, 3]);
    runs.extend(others.map(|((shape, has_sinks), tokens)| {
        let chunk = tokens / 3;
        (tokens, chunk, shape, has_sinks)
    }));
    let case = |(tokens, chunk, shape, has_sinks)| {
        OperationCase::new(
            format!("attention {tokens} in chunks of {chunk} {shape:?}"),
            move |device, input| cached(device, input, tokens, chunk, (shape, has_sinks)),
        )
    };
    runs.into_iter().map(case).collect()
}

/// The sequence in chunks of `chunk` tokens; on the reference as a whole, so that chunks must agree
/// with it.
fn cached(
    device: &Device,
    input: &CaseInput,
    tokens: usize,
    chunk: usize,
    (shape, has_sinks): (AttentionShape, bool),
) -> Result<Outputs, KernelError> {
    let chunk = match device {
        Device::Reference => tokens,
        _ => chunk,
    };
    let place = |stream, width| device.place(input.tensor(stream, &[tokens, width])?);
    let width = shape.kv_heads * shape.head_dim;
    let (q, k, v) = (
        place(15, shape.heads * shape.head_dim)?,
        place(16, width)?,
        place(17, width)?,
    );
    let codes = device.attention_codes(&q, &k, &v, &shape, Precision::I16)?;
    let sinks = sinks_of(device, input, (&shape, has_sinks))?;
    let sinks = sinks.as_ref();
    let mut keys = device.new_keys(&shape, Precision::I16)?;
    let (mut outputs, mut out) = (vec![Vec::new(); 2], None);
    for start in (0..tokens).step_by(chunk) {
        let count = chunk.min(tokens - start);
        let new = |coded: &Coded| coded.part(start * shape.kv_heads, count * shape.kv_heads);
        let (k, v) = (new(&codes.kv.k), new(&codes.kv.v));
        device.append_keys(&mut keys, &CodedKv { k, v })?;
        let queries = codes.queries.part(start * shape.heads, count * shape.heads);
        let part =
            device.attention_cached(&queries, &keys, start, &shape, sinks, Precision::I16)?;
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
