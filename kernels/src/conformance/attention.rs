//! Attention over whole sequences, and its backward pass.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::coded::Precision;
use crate::reference::attention::AttentionShape;
use crate::reference::lengths::Lengths;
use crate::reference::tree::Atoms;
use crate::{Device, KernelError, Tensor};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let shape = AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        window: None,
        scale: 0.35,
        soft_cap: None,
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
        soft_cap: None,
    };
    let mut runs = vec![
        (1, 1, shape, false),
        (2, 5, shape, false),
        (1, 128, shape, false),
        (2, 129, shape, false),
        (1, 300, narrow, false),
        (1, 290, odd, false),
    ];
    let others = variants().into_iter().zip([140, 5, 45, 33, 29, 3, 3]);
    runs.extend(others.map(|((shape, has_sinks), tokens)| (2, tokens, shape, has_sinks)));
    if size == CaseSize::Full {
        let wide = |head_dim| AttentionShape {
            heads: 8,
            kv_heads: 2,
            head_dim,
            window: None,
            scale: 0.09,
            soft_cap: None,
        };
        runs.extend([
            (2, 512, wide(64), false),
            (1, 1_300, wide(128), true),
            (1, 200, wide(256), false),
        ]);
        runs.extend(variants().map(|(shape, has_sinks)| (1, 700, shape, has_sinks)));
    }
    let mut cases = Vec::new();
    for (sequences, tokens, shape, has_sinks) in runs {
        let sinks = if has_sinks { ", sinks" } else { "" };
        for precision in [Precision::I16, Precision::I14, Precision::I8] {
            cases.push(OperationCase::new(
                format!("attention {sequences}x{tokens} {shape:?} {precision:?}{sinks}"),
                move |device, input| {
                    let lengths = Lengths::uniform(sequences, tokens);
                    let over = (&lengths, &Atoms::of(lengths.clone()));
                    run(device, input, over, (shape, has_sinks), precision)
                },
            ));
        }
    }
    cases
}

/// Windows, soft caps that bend, sinks, and heads of widths that fill no vector, no word of digits
/// and no slice of shared memory; and whether there are sinks.
pub(super) fn variants() -> [(AttentionShape, bool); 7] {
    let shape = |head_dim, window, soft_cap| AttentionShape {
        heads: 3,
        kv_heads: 1,
        head_dim,
        window,
        scale: 0.3,
        soft_cap,
    };
    [
        (shape(20, Some(24), Some(1.5)), true),
        (shape(2, None, Some(20.0)), false),
        (shape(80, Some(24), None), true),
        (shape(100, None, Some(3.0)), true),
        (shape(256, Some(7), Some(3.0)), false),
        (shape(512, None, None), true),
        (shape(1_024, None, Some(30.0)), true),
    ]
}

/// One sink per head, for cases with sinks.
pub(super) fn sinks_of(
    device: &Device,
    input: &CaseInput,
    (shape, has_sinks): (&AttentionShape, bool),
) -> Result<Option<Tensor>, KernelError> {
    let sinks = |_: ()| device.place(input.tensor(18, &[shape.heads])?);
    has_sinks.then_some(()).map(sinks).transpose()
}

/// Attention within documents both ways, its gradients summed over atoms.
pub(super) fn run(
    device: &Device,
    input: &CaseInput,
    (documents, atoms): (&Lengths, &Atoms),
    (shape, has_sinks): (AttentionShape, bool),
    precision: Precision,
) -> Result<Outputs, KernelError> {
    let (q_width, kv_width) = (
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    );
    let all = documents.tokens();
    let place = |stream, width| device.place(input.tensor(stream, &[all, width])?);
    let (q, k, v) = (
        place(11, q_width)?,
        place(12, kv_width)?,
        place(13, kv_width)?,
    );
    let q = device.scaled(&q, 4.0)?;
    let d_out = place(14, q_width)?;
    let codes = device.attention_codes(&q, &k, &v, &shape, precision, precision)?;
    let sinks = sinks_of(device, input, (&shape, has_sinks))?;
    let sinks = sinks.as_ref();
    let out = device.attention(&codes, documents, &shape, sinks, precision)?;
    let over = (documents, atoms);
    let g = device.attention_backward(&codes, &out, &d_out, over, &shape, sinks, precision)?;
    let max = out.max.values()?.iter().map(|&m| m as f32).collect();
    let mut outputs = values([out.out, out.sum, g.dq, g.dk, g.dv])?;
    outputs.push(max);
    outputs.extend(g.d_sinks.map(Tensor::into_values).transpose()?);
    Ok(outputs)
}
