//! The elementwise part of a block, by rows.

use crate::cpu::reduce;
use crate::math::{ceil_to_int, exp2};
use crate::reference::attention::{ScoreCap, rescale};

/// Keys `[first, end)` of a block that a query sees, counted from the start of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visible {
    pub(super) first: usize,
    pub(super) end: usize,
}

per_isa! {
    /// Scores under a soft cap, in their place.
    pub(super) fn cap_scores(scores: &mut [f32], cap: ScoreCap) = cap_scores_body
}

#[inline(always)]
fn cap_scores_body(scores: &mut [f32], cap: ScoreCap) {
    scores.iter_mut().for_each(|t| *t = cap.of(*t));
}

per_isa! {
    /// Turns the scores of each row into `exp2(t - M)`, 0 where masked; M and the sums come out.
    pub(super) fn softmax(
        scores: &mut [f32],
        visible: &[Visible],
        max: &mut [Option<i32>],
        sum: &mut [f32],
    ) = softmax_body
}

#[inline(always)]
fn softmax_body(scores: &mut [f32], visible: &[Visible], max: &mut [Option<i32>], sum: &mut [f32]) {
    let keys = scores.len() / visible.len();
    let rows = scores.chunks_exact_mut(keys).zip(visible);
    for ((row, seen), (max, sum)) in rows.zip(max.iter_mut().zip(sum)) {
        if seen.first >= seen.end {
            row.fill(0.0);
            (*max, *sum) = (None, 0.0);
            continue;
        }
        row[..seen.first].fill(0.0);
        row[seen.end..].fill(0.0);
        let inside = &mut row[seen.first..seen.end];
        let m = ceil_to_int(largest(inside));
        let offset = m as f32;
        inside.iter_mut().for_each(|t| *t = exp2(*t - offset));
        (*max, *sum) = (Some(m), reduce::sum(row));
    }
}

/// The largest element; the order of a maximum does not matter.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut whole = x.chunks_exact(16);
    for chunk in &mut whole {
        for i in 0..16 {
            lanes[i] = if chunk[i] > lanes[i] {
                chunk[i]
            } else {
                lanes[i]
            };
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(whole.remainder()) {
        *lane = if v > *lane { v } else { *lane };
    }
    lanes
        .iter()
        .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

/// Softmaxes over some keys, for a run of queries. See
/// [`crate::reference::attention::Partial`].
#[derive(Default)]
pub(super) struct Partials {
    pub(super) max: Vec<Option<i32>>,
    pub(super) sum: Vec<f32>,
    pub(super) out: Vec<f32>,
}

impl Partials {
    pub(super) fn empty(queries: usize, head_dim: usize) -> Self {
        Self {
            max: vec![None; queries],
            sum: vec![0.0; queries],
            out: vec![0.0; queries * head_dim],
        }
    }

    /// As [`Self::empty`], in the same memory; numerators are of any content.
    pub(super) fn reset(&mut self, queries: usize, head_dim: usize) {
        self.max.clear();
        self.max.resize(queries, None);
        self.sum.clear();
        self.sum.resize(queries, 0.0);
        self.out.resize(queries * head_dim, 0.0);
    }

    /// Adds the softmaxes over later keys.
    pub(super) fn merge(&mut self, later: &Self) {
        let dim = self.out.len() / self.max.len();
        let rows = self
            .out
            .chunks_exact_mut(dim)
            .zip(later.out.chunks_exact(dim));
        for (i, (out, later_out)) in rows.enumerate() {
            let Some(later_max) = later.max[i] else {
                continue;
            };
            let Some(max) = self.max[i] else {
                (self.max[i], self.sum[i]) = (later.max[i], later.sum[i]);
                out.copy_from_slice(later_out);
                continue;
            };
            let new = max.max(later_max);
            let (a, b) = (rescale(max, new), rescale(later_max, new));
            self.max[i] = Some(new);
            self.sum[i] = self.sum[i] * a + later.sum[i] * b;
            for (out, later) in out.iter_mut().zip(later_out) {
                *out = *out * a + later * b;
            }
        }
    }
}

/// What the gradient of the scores of one row needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowState {
    pub(super) max: f32,
    pub(super) inverse: f32,
    pub(super) delta: f32,
}

per_isa! {
    /// Turns scores into p and the products dO . v into ds, 0 where masked.
    pub(super) fn score_gradients(
        scores: &mut [f32],
        products: &mut [f32],
        visible: &[Visible],
        states: &[RowState],
    ) = score_gradients_body
}

#[inline(always)]
fn score_gradients_body(
    scores: &mut [f32],
    products: &mut [f32],
    visible: &[Visible],
    states: &[RowState],
) {
    // A slope of 1 leaves every bit as it is.
    gradients_of(scores, products, visible, states, |t| (t, 1.0));
}

per_isa! {
    /// As [`score_gradients`], where the scores have yet to pass a soft cap.
    pub(super) fn capped_score_gradients(
        scores: &mut [f32],
        products: &mut [f32],
        visible: &[Visible],
        states: &[RowState],
        cap: ScoreCap,
    ) = capped_score_gradients_body
}

#[inline(always)]
fn capped_score_gradients_body(
    scores: &mut [f32],
    products: &mut [f32],
    visible: &[Visible],
    states: &[RowState],
    cap: ScoreCap,
) {
    gradients_of(scores, products, visible, states, |t| cap.with_slope(t));
}

/// `score(t)` gives the score that the softmax took, and its slope at t.
#[inline(always)]
fn gradients_of(
    scores: &mut [f32],
    products: &mut [f32],
    visible: &[Visible],
    states: &[RowState],
    score: impl Fn(f32) -> (f32, f32),
) {
    let keys = scores.len() / visible.len();
    let rows = scores
        .chunks_exact_mut(keys)
        .zip(products.chunks_exact_mut(keys));
    for ((p, ds), (seen, state)) in rows.zip(visible.iter().zip(states)) {
        let seen = seen.first.min(seen.end)..seen.end;
        p[..seen.start].fill(0.0);
        ds[..seen.start].fill(0.0);
        p[seen.end..].fill(0.0);
        ds[seen.end..].fill(0.0);
        for (p, ds) in p[seen.clone()].iter_mut().zip(&mut ds[seen]) {
            let (t, slope) = score(*p);
            *p = exp2(t - state.max) * state.inverse;
            *ds = *p * slope * (*ds - state.delta);
        }
    }
}

per_isa! {
    /// `sum(dO * O)` of each row of `dim`.
    pub(super) fn deltas(d_out: &[f32], out: &[f32], dim: usize, delta: &mut [f32]) = deltas_body
}

#[inline(always)]
fn deltas_body(d_out: &[f32], out: &[f32], dim: usize, delta: &mut [f32]) {
    let rows = d_out.chunks_exact(dim).zip(out.chunks_exact(dim));
    for ((d_out, out), delta) in rows.zip(delta) {
        *delta = reduce::dot(d_out, out);
    }
}
