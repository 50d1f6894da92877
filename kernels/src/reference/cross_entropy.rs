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

/// What is added to the cross-entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossForm {
    /// The share of the target that is spread over the vocabulary, 0 or more and below 1.
    pub smoothing: f32,
    /// The factor of `logsumexp^2`, 0 or more.
    pub z_loss: f32,
}

impl LossForm {
    /// Whether it is the cross-entropy alone.
    pub fn is_plain(&self) -> bool {
        self.smoothing == 0.0 && self.z_loss == 0.0
    }
}

/// As [`forward`], of the loss that `form` describes. Each row becomes the gradient of its loss
/// without what is constant in the logits: `p (1 + 2 z logsumexp)`, where
/// `(1 - smoothing) onehot + smoothing / vocab` is to be subtracted.
pub fn formed(
    logits: &mut [f32],
    vocab: usize,
    targets: &[Option<u32>],
    form: LossForm,
) -> Vec<f32> {
    let rows = logits.chunks_exact_mut(vocab).zip(targets);
    rows.map(|(row, target)| match target {
        Some(target) => formed_row(row, *target as usize, form),
        None => {
            row.fill(0.0);
            0.0
        }
    })
    .collect()
}

fn formed_row(row: &mut [f32], target: usize, form: LossForm) -> f32 {
    row.iter_mut().for_each(|v| *v *= LOG2_E);
    let max = ceil_to_int(
        row.iter()
            .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m }),
    ) as f32;
    let gap = max - row[target];
    let mean = reduce::sum(row) / row.len() as f32;
    row.iter_mut().for_each(|v| *v = exp2(*v - max));
    let sum = reduce::sum(row);
    let (loss, factor) = form.loss([max, gap, mean, ln(sum)]);
    row.iter_mut().for_each(|v| *v = (*v / sum) * factor);
    loss
}

impl LossForm {
    /// The loss, and the factor of its probabilities: from M, `M - t[target]`, the mean of t, and
    /// `ln(l)`.
    #[inline(always)]
    pub(crate) fn loss(&self, [max, gap, mean, ln_sum]: [f32; 4]) -> (f32, f32) {
        let own = gap.mul_add(LN_2, ln_sum);
        let spread = (max - mean).mul_add(LN_2, ln_sum);
        let smoothed = self.smoothing.mul_add(spread - own, own);
        let log_sum = max.mul_add(LN_2, ln_sum);
        let loss = (self.z_loss * log_sum).mul_add(log_sum, smoothed);
        let factor = (2.0 * self.z_loss).mul_add(log_sum, 1.0);
        (loss, factor)
    }
}

/// 1 for each element of a row `[rows, vocab]` that has a target, 0 for others.
pub fn ones(vocab: usize, targets: &[Option<u32>]) -> Vec<f32> {
    let one = |target: &Option<u32>| if target.is_some() { 1.0 } else { 0.0 };
    let rows = targets.iter().map(one);
    rows.flat_map(|one| std::iter::repeat_n(one, vocab))
        .collect()
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
