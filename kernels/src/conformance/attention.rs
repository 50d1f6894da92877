//! Attention over whole sequences, and its backward pass.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::coded::Precision;
use crate::reference::attention::AttentionShape;
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
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
    if size == CaseSize::Full {
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
            cases.push(OperationCase::new(
                format!("attention {sequences}x{tokens} {shape:?} {precision:?}"),
                move |device, input| attention(device, input, sequences, tokens, shape, precision),
            ));
        }
    }
    cases
}

fn attention(
    device: &Device,
    input: &CaseInput,
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
    let place = |stream, width| device.place(input.tensor(stream, &[all, width])?);
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
