//! Softmax cross-entropy over the vocabulary.
//!
//! `t = logit * log2(e)`, M = the smallest integer not below max(t), `p = exp2(t - M)`,
//! l = the short sum of p; `loss = fma(M - t[target], ln 2, ln(l))`; probabilities are `p / l`.

use super::reduce;
use crate::math::{LN_2, LOG2_E, ceil_to_int, exp2, ln};

/// Turns each row of logits into probabilities and returns the loss of each row. A row without a
/// target has loss 0 and probabilities 0. logits `[rows, vocab]`.
pub fn forward(logits: &mut [f32], vocab: usize, targets: &[Option<u32>]) -> Vec<f32> {
    let rows = logits.chunks_exact_mut(vocab).zip(targets);
    rows.map(|(row, target)| match target {
        Some(target) => row_loss(row, *target as usize),
        None => {
            row.fill(0.0);
            0.0
        }
    })
    .collect()
}

fn row_loss(row: &mut [f32], target: usize) -> f32 {
    row.iter_mut().for_each(|v| *v *= LOG2_E);
    let max = ceil_to_int(
        row.iter()
            .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m }),
    );
    let gap = max as f32 - row[target];
    row.iter_mut().for_each(|v| *v = exp2(*v - max as f32));
    let sum = reduce::sum(row);
    row.iter_mut().for_each(|v| *v /= sum);
    gap.mul_add(LN_2, ln(sum))
}

/// `a -= share * b`, in one rounding; `a -= b` without a share.
fn take(a: &mut [f32], share: Option<f32>, b: impl IntoIterator<Item = f32>) {
    let pairs = a.iter_mut().zip(b);
    match share {
        Some(share) => pairs.for_each(|(a, b)| *a = (-share).mul_add(b, *a)),
        None => pairs.for_each(|(a, b)| *a -= b),
    }
}

/// From each token's row of dx `[tokens, hidden]` subtracts the decoded row of the head's weight
/// `[vocab, hidden]` at its target, times its share `[tokens]` where there are shares; `weight`
/// gives the values of a row.
pub fn take_rows(
    dx: &mut [f32],
    hidden: usize,
    weight: impl Fn(usize) -> Vec<f32>,
    targets: &[Option<u32>],
    shares: Option<&[f32]>,
) {
    let rows = dx.chunks_exact_mut(hidden).zip(targets);
    for (token, (row, target)) in rows.enumerate() {
        if let Some(target) = target {
            let share = shares.map(|shares| shares[token]);
            take(row, share, weight(*target as usize));
        }
    }
}

/// Subtracts the one-hot part from the gradient dw `[vocab, width]` of the head's weight: for each
/// token, in order, its input x `[tokens, width]` from the row of its target, times its share
/// `[tokens]` where there are shares.
pub fn take_targets(
    dw: &mut [f32],
    x: &[f32],
    width: usize,
    targets: &[Option<u32>],
    shares: Option<&[f32]>,
) {
    for (token, (row, target)) in x.chunks_exact(width).zip(targets).enumerate() {
        if let Some(target) = target {
            let at = *target as usize * width;
            let share = shares.map(|shares| shares[token]);
            take(&mut dw[at..at + width], share, row.iter().copied());
        }
    }
}
