//! How probable tokens are after a row of logits: NUMERICS.md, section 6.

use super::reduce;
use crate::math::{LN_2, LOG2_E, ceil_to_int, exp2, ln};

/// Natural logarithms of probabilities after one row of logits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprobs {
    /// Logprob of the token that was asked for.
    pub target: f32,
    /// The most probable tokens, most probable first, the lowest id first among equal logits.
    pub top: Vec<(u32, f32)>,
}

/// M and `ln(l)` of a row.
pub fn log_sum(logits: &[f32]) -> (f32, f32) {
    let scores = logits.iter().map(|v| v * LOG2_E);
    let larger = |m: f32, v: f32| if v > m { v } else { m };
    let max = ceil_to_int(scores.clone().fold(f32::NEG_INFINITY, larger)) as f32;
    let p: Vec<f32> = scores.map(|t| exp2(t - max)).collect();
    (max, ln(reduce::sum(&p)))
}

/// The logprobs after one row of logits, whose M and `ln(l)` are given: of `token`, and of the
/// `top` most probable tokens.
pub fn of_row(logits: &[f32], (max, log_sum): (f32, f32), token: u32, top: usize) -> Logprobs {
    let logprob = |token: u32| {
        let gap = max - logits[token as usize] * LOG2_E;
        // From 0, so that no -0 comes out.
        0.0 - gap.mul_add(LN_2, log_sum)
    };
    let top = largest(logits, top).into_iter();
    Logprobs {
        target: logprob(token),
        top: top.map(|token| (token, logprob(token))).collect(),
    }
}

/// The `count` tokens of the largest logits, the lowest id first among equals.
fn largest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(count + 1);
    for (token, logit) in (0..).zip(logits) {
        let is_below = |&held: &u32| logits[held as usize] >= *logit;
        if best.len() == count && best.last().is_none_or(is_below) {
            continue;
        }
        let place = best.partition_point(is_below);
        best.insert(place, token);
        best.truncate(count);
    }
    best
}
