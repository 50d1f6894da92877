//! Logprobs. The reference computes each as the loss of a row alone.

use super::{CaseInput, OperationCase, Outputs};
use crate::reference::logprobs::Logprobs;
use crate::{Device, KernelError, Tensor};

pub(super) fn cases() -> Vec<OperationCase> {
    let case = |vocab| {
        OperationCase::new(format!("logprobs of {vocab}"), move |device, input| {
            logprobs(device, input, vocab)
        })
    };
    [1, 17, 9_001].map(case).into()
}

fn logprobs(device: &Device, input: &CaseInput, vocab: usize) -> Result<Outputs, KernelError> {
    let rows = 6;
    let numbers = input.numbers(93, rows * vocab);
    let tokens = input.ids(94, rows, vocab as u32);
    let logits = device.place(Tensor::new(&[rows, vocab], numbers.clone())?)?;
    let tops = [0u8, 1, 3, 20, 255, 5];
    if !matches!(device, Device::Reference) {
        let targets: Vec<_> = (0..rows).map(|row| (row, tokens[row], tops[row])).collect();
        let scored = device.logprobs(&logits, &targets)?;
        let row = |one: Logprobs| {
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
