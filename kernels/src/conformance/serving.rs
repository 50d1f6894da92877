//! What serving adds: attention over pages, draws from several rows, logprobs. The reference
//! computes each by the plain operation, sequence by sequence and row by row.

use super::{Case, Draw, Outputs, Size};
use crate::coded::{Coded, Precision};
use crate::ops::sample::{Candidates, RowSample, Sampling};
use crate::ops::{AttentionCodes, AttentionShape, CodedKv, PAGE_TOKENS, PagedRun};
use crate::{Device, KernelError, Tensor};

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
        heads: 3,
        kv_heads: 1,
        head_dim: 34,
        window: Some(130),
        scale: 0.2,
    };
    let alone = AttentionShape {
        heads: 2,
        kv_heads: 2,
        ..shape
    };
    let mut runs: Vec<(&'static [usize], usize, AttentionShape)> = vec![
        (&[1], 1, shape),
        (&[5, 130, 1, 64], 33, shape),
        (&[290, 7], 61, narrow),
        (&[140, 260], 130, odd),
        (&[1_040], 1_039, alone),
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
            (&[700, 1, 129, 512][..], 97, wide(64)),
            (&[1_300, 40], 1_024, wide(128)),
        ]);
    }
    let mut cases = Vec::new();
    for (lengths, chunk, shape) in runs {
        for precision in [Precision::I16, Precision::I8] {
            cases.push(Case::new(
                format!("attention paged {lengths:?} by {chunk} {shape:?} {precision:?}"),
                move |device, draw| paged(device, draw, lengths, chunk, (shape, precision)),
            ));
        }
    }
    for vocab in [3, 77, 4_099] {
        cases.push(Case::new(
            format!("draws from rows of {vocab}"),
            move |device, draw| draws(device, draw, vocab),
        ));
    }
    for vocab in [1, 17, 9_001] {
        cases.push(Case::new(
            format!("logprobs of {vocab}"),
            move |device, draw| logprobs(device, draw, vocab),
        ));
    }
    cases
}

/// Sequences of `lengths` side by side, `chunk` tokens of each a pass and single tokens at the end,
/// their pages in a pool in turns.
fn paged(
    device: &Device,
    draw: &Draw,
    lengths: &[usize],
    chunk: usize,
    (shape, precision): (AttentionShape, Precision),
) -> Result<Outputs, KernelError> {
    let sequences = sequences(device, draw, lengths, (shape, precision))?;
    if let Device::Reference = device {
        let whole = |codes| {
            device
                .attention(codes, 1, &shape, precision)?
                .out
                .into_values()
        };
        return sequences.iter().map(whole).collect();
    }
    // Page i of sequence s is the (i * sequences + s)-th from the end.
    let longest = lengths.iter().max();
    let most = longest.map_or(0, |&len| len.div_ceil(PAGE_TOKENS));
    let count = (most * lengths.len()) as u32;
    let page = |s: usize, i: usize| count - 1 - (i * lengths.len() + s) as u32;
    let tables: Vec<Vec<u32>> = (0..lengths.len())
        .map(|s| (0..most).map(|i| page(s, i)).collect())
        .collect();
    let mut pages = device.kv_pages(1, &shape, precision, count)?;
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
        let out = device.attention_paged(&q, &pages, 0, &only, &shape, precision)?;
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

/// The codes of each sequence.
fn sequences(
    device: &Device,
    draw: &Draw,
    lengths: &[usize],
    (shape, precision): (AttentionShape, Precision),
) -> Result<Vec<AttentionCodes>, KernelError> {
    let one = |(stream, &tokens): (u64, &usize)| {
        let place = |at: u64, heads: usize| {
            device.place(draw.tensor(stream + at, &[tokens, heads * shape.head_dim])?)
        };
        let (q, kv) = (place(0, shape.heads)?, shape.kv_heads);
        device.attention_codes(&q, &place(1, kv)?, &place(2, kv)?, &shape, precision)
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

/// What is sampled from has been found to be finite, and stays so.
fn spread(numbers: Vec<f32>) -> Vec<f32> {
    let wider = |v: f32| if v.abs() < 1e30 { v * 8.0 } else { v };
    numbers.into_iter().map(wider).collect()
}

fn draws(device: &Device, draw: &Draw, vocab: usize) -> Result<Outputs, KernelError> {
    let rows = 4;
    let numbers = spread(draw.numbers(90, rows * vocab));
    let logits = device.place(Tensor::new(&[rows, vocab], numbers.clone())?)?;
    let biases: Vec<(u32, f32)> = draw
        .ids(91, 5, vocab as u32)
        .into_iter()
        .zip([4.0, -3.0, 100.0, -100.0, 0.5])
        .collect();
    let mut allowed: Vec<u8> = draw
        .ids(92, vocab.div_ceil(8), 256)
        .iter()
        .map(|&b| b as u8)
        .collect();
    allowed[0] |= 2;
    let kinds = [
        (&[][..], None),
        (&biases[..], None),
        (&[], Some(&allowed[..])),
        (&biases, Some(&allowed)),
    ];
    let settings = [
        (0.0, 0, 1.0),
        (1.0, 0, 1.0),
        (0.7, 5, 1.0),
        (1.3, 0, 0.8),
        (0.9, 300, 0.95),
    ];
    let mut samples = Vec::new();
    for (at, (temperature, top_k, top_p)) in settings.into_iter().enumerate() {
        for (kind, &(bias, allowed)) in kinds.iter().enumerate() {
            let seed = (at * 7 + kind) as u64;
            samples.push(RowSample {
                row: (at + 2 * kind) % rows,
                sampling: Sampling {
                    temperature,
                    top_k,
                    top_p,
                    seed,
                },
                candidates: Candidates { bias, allowed },
                position: 5 + seed,
            });
        }
    }
    if !matches!(device, Device::Reference) {
        let tokens = device.sample_rows(&logits, &samples)?;
        return Ok(vec![tokens.into_iter().map(|token| token as f32).collect()]);
    }
    let row = |row: usize| &numbers[row * vocab..(row + 1) * vocab];
    let plain = |sample: &RowSample<'_>| plain_draw(device, row(sample.row), sample);
    Ok(vec![samples.iter().map(plain).collect::<Result<_, _>>()?])
}

/// A draw by the plain operation, from the logits of the candidates alone.
fn plain_draw(device: &Device, logits: &[f32], sample: &RowSample<'_>) -> Result<f32, KernelError> {
    let Candidates { bias, allowed } = sample.candidates;
    let mut logits = logits.to_vec();
    for (token, bias) in bias {
        logits[*token as usize] += bias;
    }
    let is_in = |t: &usize| allowed.is_none_or(|bits| bits[t / 8] >> (t % 8) & 1 == 1);
    let ids: Vec<usize> = (0..logits.len()).filter(is_in).collect();
    let few = ids.iter().map(|&id| logits[id]).collect::<Vec<f32>>();
    let few = Tensor::new(&[1, few.len()], few)?;
    let drawn = device.sample(&few, &sample.sampling, sample.position)?;
    Ok(ids[drawn as usize] as f32)
}

fn logprobs(device: &Device, draw: &Draw, vocab: usize) -> Result<Outputs, KernelError> {
    let rows = 6;
    let numbers = draw.numbers(93, rows * vocab);
    let tokens = draw.ids(94, rows, vocab as u32);
    let logits = device.place(Tensor::new(&[rows, vocab], numbers.clone())?)?;
    let tops = [0u8, 1, 3, 20, 255, 5];
    if !matches!(device, Device::Reference) {
        let targets: Vec<_> = (0..rows).map(|row| (row, tokens[row], tops[row])).collect();
        let scored = device.logprobs(&logits, &targets)?;
        let row = |one: crate::ops::sample::Logprobs| {
            let top = one
                .top
                .into_iter()
                .flat_map(|(token, logprob)| [token as f32, logprob]);
            std::iter::once(one.target).chain(top).collect()
        };
        return Ok(scored.into_iter().map(row).collect());
    }
    // The loss of a row alone, for each token that is asked for.
    let score = |row: usize, token: u32| {
        let line = numbers[row * vocab..(row + 1) * vocab].to_vec();
        let mut line = Tensor::new(&[1, vocab], line)?;
        let loss = device.cross_entropy(&mut line, &device.targets(&[Some(token)])?)?;
        Ok::<f32, KernelError>(0.0 - loss.data()[0])
    };
    let row = |row: usize| {
        let line = &numbers[row * vocab..(row + 1) * vocab];
        let mut ids: Vec<u32> = (0..vocab as u32).collect();
        // Stable: the lowest id first among equals.
        ids.sort_by(|&a, &b| {
            line[b as usize]
                .partial_cmp(&line[a as usize])
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let mut out = vec![score(row, tokens[row])?];
        for &id in ids.iter().take(tops[row].into()) {
            out.extend([id as f32, score(row, id)?]);
        }
        Ok(out)
    };
    (0..rows).map(row).collect()
}
