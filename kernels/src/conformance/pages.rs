//! Attention over pages. The reference computes each sequence as a whole.

use super::attention::{sinks_of, variants};
use super::{CaseInput, CaseSize, OperationCase, Outputs};
use crate::coded::{Coded, Precision};
use crate::reference::attention::{AttentionCodes, AttentionShape, CodedKv};
use crate::reference::pages::{PAGE_TOKENS, PagedRun};
use crate::{Device, KernelError};

/// Of queries, and of keys and values.
const PRECISIONS: [(Precision, Precision); 3] = [
    (Precision::I16, Precision::I16),
    (Precision::I16, Precision::I8),
    (Precision::I8, Precision::I8),
];

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
        heads: 3,
        kv_heads: 1,
        head_dim: 34,
        window: Some(130),
        scale: 0.2,
        soft_cap: None,
    };
    let alone = AttentionShape {
        heads: 2,
        kv_heads: 2,
        ..shape
    };
    let mut runs: Vec<(&'static [usize], usize, AttentionShape, bool)> = vec![
        (&[1], 1, shape, false),
        (&[5, 130, 1, 64], 33, shape, false),
        (&[290, 7], 61, narrow, false),
        (&[140, 260], 130, odd, false),
        (&[1_040], 1_039, alone, false),
    ];
    let lengths: [&[usize]; 7] = [&[140, 6], &[5], &[9, 45], &[33, 1], &[29, 9], &[5], &[5, 2]];
    let others = variants().into_iter().zip(lengths);
    runs.extend(others.map(|((shape, has_sinks), lengths)| (lengths, 19, shape, has_sinks)));
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
            (&[700, 1, 129, 512][..], 97, wide(64), false),
            (&[1_300, 40], 1_024, wide(128), true),
        ]);
    }
    let mut cases = Vec::new();
    for (lengths, chunk, shape, has_sinks) in runs {
        for precisions in PRECISIONS {
            let sizes = (lengths, chunk);
            cases.push(OperationCase::new(
                format!("attention paged {lengths:?} by {chunk} {shape:?} {precisions:?}"),
                move |device, input| paged(device, input, sizes, (shape, has_sinks), precisions),
            ));
        }
    }
    cases
}

/// Sequences of `lengths` side by side, `chunk` tokens of each a pass and single tokens at the end,
/// their pages in a pool in turns.
fn paged(
    device: &Device,
    input: &CaseInput,
    (lengths, chunk): (&[usize], usize),
    (shape, has_sinks): (AttentionShape, bool),
    (precision, key_values): (Precision, Precision),
) -> Result<Outputs, KernelError> {
    let precisions = (precision, key_values);
    let sequences = sequences(device, input, lengths, (shape, precisions))?;
    let sinks = sinks_of(device, input, (&shape, has_sinks))?;
    let sinks = sinks.as_ref();
    if let Device::Reference = device {
        let whole = |codes: &AttentionCodes| {
            device
                .attention(codes, &codes.as_one(&shape), &shape, sinks, precision)?
                .out
                .into_values()
        };
        return sequences.iter().map(whole).collect();
    }
    let (tables, count) = tables(lengths);
    let mut pages = device.kv_pages(1, &shape, key_values, count)?;
    let mut outputs = vec![Vec::new(); lengths.len()];
    let mut done = vec![0; lengths.len()];
    while done.iter().zip(lengths).any(|(done, len)| done < len) {
        let mut runs = Vec::new();
        for (s, &len) in lengths
            .iter()
            .enumerate()
            .filter(|(s, len)| done[*s] < **len)
        {
            let left = len - done[s];
            let count = if left > 3 { chunk.min(left - 3) } else { 1 };
            runs.push((
                s,
                PagedRun {
                    pages: &tables[s],
                    first: done[s],
                    count,
                },
            ));
        }
        let only: Vec<PagedRun<'_>> = runs.iter().map(|(_, run)| *run).collect();
        let rows = |of: &dyn Fn(usize) -> Coded, heads: usize| {
            let parts = runs.iter().map(|(s, run)| {
                let all = of(*s);
                all.part(run.first * heads, run.count * heads)
            });
            joined(parts)
        };
        let k = rows(&|s| sequences[s].kv.k.clone(), shape.kv_heads)?;
        let v = rows(&|s| sequences[s].kv.v.clone(), shape.kv_heads)?;
        let q = rows(&|s| sequences[s].queries.clone(), shape.heads)?;
        device.write_pages(&mut pages, 0, &CodedKv { k, v }, &only)?;
        let out = device.attention_paged(&q, &pages, 0, &only, &shape, sinks, precision)?;
        let (out, mut at) = (out.into_values()?, 0);
        for (s, run) in runs {
            let len = run.count * shape.heads * shape.head_dim;
            outputs[s].extend_from_slice(&out[at..at + len]);
            at += len;
            done[s] = run.end();
        }
    }
    Ok(outputs)
}

/// The pages of each sequence, and how many there are: page i of sequence s is the
/// (i * sequences + s)-th from the end.
fn tables(lengths: &[usize]) -> (Vec<Vec<u32>>, u32) {
    let longest = lengths.iter().max();
    let most = longest.map_or(0, |&len| len.div_ceil(PAGE_TOKENS));
    let count = (most * lengths.len()) as u32;
    let page = |s: usize, i: usize| count - 1 - (i * lengths.len() + s) as u32;
    let of = |s: usize| (0..most).map(|i| page(s, i)).collect();
    ((0..lengths.len()).map(of).collect(), count)
}

/// The codes of each sequence.
fn sequences(
    device: &Device,
    input: &CaseInput,
    lengths: &[usize],
    (shape, (p, key_values)): (AttentionShape, (Precision, Precision)),
) -> Result<Vec<AttentionCodes>, KernelError> {
    let one = |(stream, &tokens): (u64, &usize)| {
        let place = |at: u64, heads: usize| {
            device.place(input.tensor(stream + at, &[tokens, heads * shape.head_dim])?)
        };
        let (q, kv) = (place(0, shape.heads)?, shape.kv_heads);
        let (k, v) = (place(1, kv)?, place(2, kv)?);
        device.attention_codes(&q, &k, &v, &shape, p, key_values)
    };
    (70..).step_by(3).zip(lengths).map(one).collect()
}

/// Coded rows one after another, on the host.
fn joined(parts: impl Iterator<Item = Coded>) -> Result<Coded, KernelError> {
    let mut all: Option<Coded> = None;
    for part in parts {
        match &mut all {
            None => all = Some(part.on_host()?.into_owned()),
            Some(all) => all.append(&part)?,
        }
    }
    all.ok_or_else(|| KernelError::DoesNotFit("no rows".to_string()))
}
