//! Softmax cross-entropy by rows. Twin of [`crate::reference::cross_entropy`].

use rayon::prelude::*;

use super::{Cpu, reduce};
use crate::math::{LN_2, LOG2_E, ceil_to_int, exp2, ln};
use crate::reference::cross_entropy::LossForm;

/// Turns each row of logits into probabilities and returns the loss of each row.
pub fn forward(cpu: &Cpu, logits: &mut [f32], vocab: usize, targets: &[Option<u32>]) -> Vec<f32> {
    let mut losses = vec![0.0; targets.len()];
    cpu.pool().install(|| {
        logits
            .par_chunks_mut(vocab)
            .zip(targets)
            .zip(&mut losses)
            .for_each(|((row, target), loss)| match target {
                Some(target) => *loss = row_loss(cpu.isa(), row, *target as usize),
                None => row.fill(0.0),
            });
    });
    losses
}

/// As [`forward`], of the loss that `form` describes; rows become the part of its gradient that
/// depends on the logits.
pub fn formed(
    cpu: &Cpu,
    logits: &mut [f32],
    vocab: usize,
    targets: &[Option<u32>],
    form: LossForm,
) -> Vec<f32> {
    let mut losses = vec![0.0; targets.len()];
    cpu.pool().install(|| {
        logits
            .par_chunks_mut(vocab)
            .zip(targets)
            .zip(&mut losses)
            .for_each(|((row, target), loss)| match target {
                Some(target) => *loss = formed_row(cpu.isa(), row, *target as usize, form),
                None => row.fill(0.0),
            });
    });
    losses
}

per_isa! {
    fn formed_row(row: &mut [f32], target: usize, form: LossForm) -> f32 = formed_row_body
}

#[inline(always)]
fn formed_row_body(row: &mut [f32], target: usize, form: LossForm) -> f32 {
    let max = scaled_and_max(row);
    let gap = max - row[target];
    let mean = reduce::sum(row) / row.len() as f32;
    row.iter_mut().for_each(|v| *v = exp2(*v - max));
    let sum = reduce::sum(row);
    let (loss, factor) = form.loss([max, gap, mean, ln(sum)]);
    row.iter_mut().for_each(|v| *v = (*v / sum) * factor);
    loss
}

per_isa! {
    fn row_loss(row: &mut [f32], target: usize) -> f32 = row_loss_body
}

/// Makes the row `logit * log2(e)`; the smallest integer not below its maximum.
#[inline(always)]
fn scaled_and_max(row: &mut [f32]) -> f32 {
    // The order of a maximum does not matter: lanes let it be a vector.
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in row.chunks_mut(16) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *v *= LOG2_E;
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    let max = ceil_to_int(
        lanes
            .iter()
            .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m }),
    );
    max as f32
}

#[inline(always)]
fn row_loss_body(row: &mut [f32], target: usize) -> f32 {
    let max = scaled_and_max(row);
    let gap = max - row[target];
    row.iter_mut().for_each(|v| *v = exp2(*v - max));
    let sum = reduce::sum(row);
    row.iter_mut().for_each(|v| *v /= sum);
    gap.mul_add(LN_2, ln(sum))
}
