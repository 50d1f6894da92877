//! The sum under a logprob, by vectors. Twin of [`crate::reference::logprobs`].

use super::reduce;
use crate::math::{LOG2_E, ceil_to_int, exp2, ln};

per_isa! {
    /// M and `ln(l)` of a row of logits; the probabilities times l go into `p`.
    pub fn log_sum(logits: &[f32], p: &mut [f32]) -> (f32, f32) = log_sum_body
}

#[inline(always)]
fn log_sum_body(logits: &[f32], p: &mut [f32]) -> (f32, f32) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for (logits, p) in logits.chunks(16).zip(p.chunks_mut(16)) {
        for (lane, (v, p)) in lanes.iter_mut().zip(logits.iter().zip(p)) {
            *p = v * LOG2_E;
            *lane = if *p > *lane { *p } else { *lane };
        }
    }
    let larger = |m: f32, &v: &f32| if v > m { v } else { m };
    let max = ceil_to_int(lanes.iter().fold(f32::NEG_INFINITY, larger)) as f32;
    p.iter_mut().for_each(|v| *v = exp2(*v - max));
    (max, ln(reduce::sum(p)))
}
