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
    let case = |(tokens, chunk, shape, has_sinks), key_values| {
        OperationCase::new(
            format!("attention {tokens} in chunks of {chunk} {shape:?} {key_values:?}"),
            move |device, input| {
                let sizes = (tokens, chunk);
                cached(device, input, sizes, (shape, has_sinks), key_values)
            },
        )
    };
    let of = |run| [Precision::I16, Precision::I8].map(|key_values| case(run, key_values));
    runs.into_iter().flat_map(of).collect()
}

/// The sequence in chunks of `chunk` tokens; on the reference as a whole, so that chunks must agree
/// with it.
fn cached(
    device: &Device,
    input: &CaseInput,
    (tokens, chunk): (usize, usize),
    (shape, has_sinks): (AttentionShape, bool),
    key_values: Precision,
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
    let p = Precision::I16;
    let codes = device.attention_codes(&q, &k, &v, &shape, p, key_values)?;
    let sinks = sinks_of(device, input, (&shape, has_sinks))?;
    let sinks = sinks.as_ref();
    let mut keys = device.new_keys(&shape, key_values)?;
    let mut out = Vec::new();
    for start in (0..tokens).step_by(chunk) {
        let count = chunk.min(tokens - start);
        let new = |coded: &Coded| coded.part(start * shape.kv_heads, count * shape.kv_heads);
        let (k, v) = (new(&codes.kv.k), new(&codes.kv.v));
        device.append_keys(&mut keys, &CodedKv { k, v })?;
        let queries = codes.queries.part(start * shape.heads, count * shape.heads);
        let part = device.attention_cached(&queries, &keys, start, &shape, sinks, p)?;
        out.extend_from_slice(&part.values()?);
    }
    Ok(vec![out])
}
