//! The choice of experts by a router, token by token.
//!
//! Scores of all experts: probabilities of a softmax, sigmoids, or the logits themselves. The
//! chosen are the first by (score + correction falling, index rising); their weights stand by
//! rising index.

use super::reduce;
use crate::math::{LOG2_E, ceil_to_int, exp, exp2};

/// What is added to the sum that sigmoids are normalised by, which may be 0.
const LEAST_SUM: f32 = 1e-20;

/// How a router's logits become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterKind {
    /// A softmax over all experts; the chosen ones keep their probabilities.
    Softmax,
    /// A sigmoid of each logit.
    Sigmoid,
    /// A softmax over the logits of the chosen experts alone.
    SoftmaxOfChosen,
}

/// How a router chooses and weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// How logits become weights.
    pub kind: RouterKind,
    /// Experts of a token: at least 1, at most all.
    pub chosen: usize,
    /// Whether the weights of a token are divided by their sum. Those of
    /// [`RouterKind::SoftmaxOfChosen`] always add up to 1.
    pub normalised: bool,
    /// What weights are multiplied by at the end.
    pub factor: f32,
}

/// Experts and weights of every token, both `[m, chosen]`, for logits `[m, experts]`. `correction`
/// `[experts]` is added to scores for the choice alone.
pub fn forward(
    logits: &[f32],
    experts: usize,
    correction: Option<&[f32]>,
    routing: &Routing,
) -> (Vec<u32>, Vec<f32>) {
    let len = logits.len() / experts * routing.chosen;
    let (mut chosen, mut weights) = (vec![0; len], vec![0.0; len]);
    let mut scores = vec![0.0; experts];
    let outputs = chosen
        .chunks_exact_mut(routing.chosen)
        .zip(weights.chunks_exact_mut(routing.chosen));
    for (row, (chosen, weights)) in logits.chunks_exact(experts).zip(outputs) {
        forward_row(row, correction, routing, &mut scores, (chosen, weights));
    }
    (chosen, weights)
}

/// One token; `scores` is scratch memory.
#[inline(always)]
pub(crate) fn forward_row(
    logits: &[f32],
    correction: Option<&[f32]>,
    routing: &Routing,
    scores: &mut [f32],
    (chosen, weights): (&mut [u32], &mut [f32]),
) {
    score(logits, routing.kind, scores);
    choose(scores, correction, chosen);
    weigh(scores, chosen, routing, weights);
    weights.iter_mut().for_each(|w| *w *= routing.factor);
}

#[inline(always)]
fn score(logits: &[f32], kind: RouterKind, scores: &mut [f32]) {
    scores.copy_from_slice(logits);
    match kind {
        RouterKind::Softmax => {
            exponentials(scores);
            let sum = reduce::sum(scores);
            scores.iter_mut().for_each(|p| *p /= sum);
        }
        RouterKind::Sigmoid => scores.iter_mut().for_each(|x| *x = 1.0 / (1.0 + exp(-*x))),
        RouterKind::SoftmaxOfChosen => {}
    }
}

/// `exp2(t - M)` of each, t = logit * log2(e), M = the smallest integer not below max(t).
#[inline(always)]
fn exponentials(values: &mut [f32]) {
    values.iter_mut().for_each(|v| *v *= LOG2_E);
    let largest = values
        .iter()
        .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    let max = ceil_to_int(largest) as f32;
    values.iter_mut().for_each(|v| *v = exp2(*v - max));
}

/// The first experts by (score + correction falling, index rising), by rising index. A score of NaN
/// counts as minus infinity here; it comes out as NaN in the weights that depend on it.
#[inline(always)]
fn choose(scores: &[f32], correction: Option<&[f32]>, chosen: &mut [u32]) {
    let value = |expert: usize| {
        let score = correction.map_or(scores[expert], |c| scores[expert] + c[expert]);
        if score.is_nan() {
            f32::NEG_INFINITY
        } else {
            score
        }
    };
    let mut last: Option<(f32, usize)> = None;
    for slot in chosen.iter_mut() {
        let mut best: Option<(f32, usize)> = None;
        for expert in 0..scores.len() {
            let value = value(expert);
            let is_left = last.is_none_or(|(v, e)| value < v || value == v && expert > e);
            // Of equals the first one stays.
            if is_left && best.is_none_or(|(v, _)| value > v) {
                best = Some((value, expert));
            }
        }
        last = best;
        *slot = best.map_or(0, |(_, expert)| expert as u32);
    }
    chosen.sort_unstable();
}

/// The weights of the chosen experts, before the factor; the sum that they were divided by, or 1.
#[inline(always)]
fn weigh(scores: &[f32], chosen: &[u32], routing: &Routing, weights: &mut [f32]) -> f32 {
    for (weight, &expert) in weights.iter_mut().zip(chosen) {
        *weight = scores[expert as usize];
    }
    let mut sum = 0.0;
    match routing.kind {
        RouterKind::SoftmaxOfChosen => exponentials(weights),
        _ if !routing.normalised => return 1.0,
        RouterKind::Softmax | RouterKind::Sigmoid => {}
    }
    weights.iter().for_each(|w| sum += w);
    if routing.kind == RouterKind::Sigmoid {
        sum += LEAST_SUM;
    }
    weights.iter_mut().for_each(|w| *w /= sum);
    sum
}

/// The gradient of logits `[m, experts]` from that of the weights `[m, chosen]`, for the choice
/// that was made.
pub fn backward(
    logits: &[f32],
    experts: usize,
    chosen: &[u32],
    d_weights: &[f32],
    routing: &Routing,
) -> Vec<f32> {
    let mut d_logits = vec![0.0; logits.len()];
    let mut work = vec![0.0; experts + routing.chosen];
    let inputs = chosen
        .chunks_exact(routing.chosen)
        .zip(d_weights.chunks_exact(routing.chosen));
    let rows = logits.chunks_exact(experts).zip(inputs);
    for ((row, inputs), out) in rows.zip(d_logits.chunks_exact_mut(experts)) {
        backward_row(row, inputs, routing, &mut work, out);
    }
    d_logits
}

/// One token; `work` is scratch memory for `experts + chosen` numbers.
#[inline(always)]
pub(crate) fn backward_row(
    logits: &[f32],
    (chosen, d_weights): (&[u32], &[f32]),
    routing: &Routing,
    work: &mut [f32],
    d_logits: &mut [f32],
) {
    let (scores, weights) = work.split_at_mut(logits.len());
    score(logits, routing.kind, scores);
    let sum = weigh(scores, chosen, routing, weights);
    let factor = routing.factor;
    let mut mean = 0.0f32;
    for (w, d) in weights.iter().zip(d_weights) {
        mean = w.mul_add(factor * d, mean);
    }
    // All logits share the softmax that the weights are taken from.
    if routing.kind == RouterKind::Softmax && !routing.normalised {
        for (d, p) in d_logits.iter_mut().zip(scores.iter()) {
            *d = p * (0.0 - mean);
        }
    }
    for ((&expert, &w), &d) in chosen.iter().zip(weights.iter()).zip(d_weights) {
        let (s, d) = (scores[expert as usize], factor * d);
        d_logits[expert as usize] = match routing.kind {
            RouterKind::Sigmoid if routing.normalised => ((d - mean) / sum) * (s * (1.0 - s)),
            RouterKind::Sigmoid => d * (s * (1.0 - s)),
            _ => w * (d - mean),
        };
    }
}
