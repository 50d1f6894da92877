//! Draws: from one row, and from several rows with biases and with only some tokens allowed.

use super::{CaseInput, CaseSize, OperationCase, Outputs};
use crate::reference::sample::{Candidates, RowSample, Sampling};
use crate::{Device, KernelError, Tensor};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut cases = Vec::new();
    let mut sizes = vec![1, 7, 4_099];
    if size == CaseSize::Full {
        sizes.push(151_936);
    }
    for vocab in sizes {
        cases.push(OperationCase::new(
            format!("sampling from {vocab}"),
            move |device, input| sampling(device, input, vocab),
        ));
    }
    for vocab in [3, 77, 4_099] {
        cases.push(OperationCase::new(
            format!("draws from rows of {vocab}"),
            move |device, input| draws(device, input, vocab),
        ));
    }
    cases
}

/// Spreads numbers out but keeps them finite: logits are checked before they are sampled from.
fn spread(numbers: Vec<f32>) -> Vec<f32> {
    let wider = |v: f32| if v.abs() < 1e30 { v * 8.0 } else { v };
    numbers.into_iter().map(wider).collect()
}

fn sampling(device: &Device, input: &CaseInput, vocab: usize) -> Result<Outputs, KernelError> {
    let logits = spread(input.numbers(64, vocab));
    let logits = device.place(Tensor::new(&[1, vocab], logits)?)?;
    let mut tokens = Vec::new();
    for (temperature, top_k, top_p) in [(0.0, 0, 1.0), (1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8)]
    {
        for seed in 0..3 {
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                seed,
            };
            tokens.push(device.sample(&logits, &sampling, 11 + seed)? as f32);
        }
    }
    Ok(vec![tokens])
}

fn draws(device: &Device, input: &CaseInput, vocab: usize) -> Result<Outputs, KernelError> {
    let rows = 4;
    let numbers = spread(input.numbers(90, rows * vocab));
    let logits = device.place(Tensor::new(&[rows, vocab], numbers.clone())?)?;
    let biases: Vec<(u32, f32)> = input
        .ids(91, 5, vocab as u32)
        .into_iter()
        .zip([4.0, -3.0, 100.0, -100.0, 0.5])
        .collect();
    let mut allowed: Vec<u8> = input
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
