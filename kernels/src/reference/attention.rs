//! Causal attention in blocks of keys: NUMERICS.md, section 5.
//!
//! Scores are in base 2: the factor `scale * log2(e)` is multiplied into q before it is coded.
//! Every maximum is an integer, so rescaling is exact and a kernel that keeps all blocks, one that
//! streams them and one that splits them over chunks agree.

mod backward;
mod cap;
mod sinks;
mod values;

pub use backward::{BackwardInput, SequenceGradients, backward};
pub use cap::ScoreCap;
pub use sinks::{SoftmaxEnd, sink_gradient};
pub use values::{AttentionCodes, AttentionGradients, AttentionOut, AttentionShape, CodedKv};

use super::code::code_rows;
use super::reduce;
use crate::coded::{Coded, Precision};
use crate::math::{ceil_to_int, exp2, pow2_f32, pow2_f64};

/// Keys of a block, by absolute position.
pub const BLOCK: usize = 128;
/// Blocks of a chunk: GPU kernels for few tokens give whole chunks to thread blocks.
pub const CHUNK_BLOCKS: usize = 8;
/// Sums this many powers of two below the maximum are dropped.
pub const DROP_BELOW: i32 = 60;

/// What the forward pass of one sequence leaves for the backward pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceOut {
    /// `[queries, heads * head_dim]`.
    pub out: Vec<f32>,
    /// The integer maximum of each (query, head).
    pub max: Vec<i32>,
    /// The denominator of each (query, head), at that maximum.
    pub sum: Vec<f32>,
}

impl SequenceOut {
    /// Puts the tokens of `later` after these.
    pub fn append(&mut self, later: Self) {
        self.out.extend(later.out);
        self.max.extend(later.max);
        self.sum.extend(later.sum);
    }
}

/// A partial softmax over some keys: `out / sum` at the scale `2^max`.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    /// Integer maximum, or `None` before the first key.
    pub max: Option<i32>,
    /// Denominator.
    pub sum: f32,
    /// Numerator, `[head_dim]`.
    pub out: Vec<f32>,
}

impl Partial {
    /// A softmax over no keys.
    pub fn empty(head_dim: usize) -> Self {
        Self {
            max: None,
            sum: 0.0,
            out: vec![0.0; head_dim],
        }
    }

    /// Adds the softmax over later keys. Rescaling is by powers of two.
    pub fn merge(&mut self, later: &Self) {
        let Some(later_max) = later.max else { return };
        let Some(max) = self.max else {
            self.clone_from(later);
            return;
        };
        let new = max.max(later_max);
        let (a, b) = (rescale(max, new), rescale(later_max, new));
        self.max = Some(new);
        self.sum = self.sum * a + later.sum * b;
        for (out, later) in self.out.iter_mut().zip(&later.out) {
            *out = *out * a + later * b;
        }
    }
}

/// `2^(from - to)`, or 0 where that is dropped by rule.
#[inline(always)]
pub fn rescale(from: i32, to: i32) -> f32 {
    let shift = from.wrapping_sub(to);
    if shift < -DROP_BELOW {
        0.0
    } else {
        pow2_f32(shift.min(0))
    }
}

/// Attention of `queries` (coded rows `[tokens * heads, head_dim]`, already scaled) at positions
/// `first_position..` over the keys of `kv` up to each query's own position, and `sinks` `[heads]`
/// where there are some.
pub fn forward(
    queries: &Coded,
    kv: &CodedKv,
    first_position: usize,
    shape: &AttentionShape,
    sinks: Option<&[f32]>,
    precision: Precision,
) -> SequenceOut {
    let mut result = SequenceOut::default();
    for row in 0..queries.rows {
        let (query, head) = (row / shape.heads, row % shape.heads);
        let position = first_position + query;
        let total = one_query(
            queries,
            row,
            kv,
            head / shape.group(),
            position,
            shape,
            precision,
        );
        let end = SoftmaxEnd::new((total.max, total.sum), sinks.map(|sinks| sinks[head]));
        let out = total.out.iter().map(|o| o * end.keep / end.sum);
        result.out.extend(out);
        result.max.push(end.max);
        result.sum.push(end.sum);
    }
    result
}

fn one_query(
    queries: &Coded,
    row: usize,
    kv: &CodedKv,
    kv_head: usize,
    position: usize,
    shape: &AttentionShape,
    precision: Precision,
) -> Partial {
    let mut total = Partial::empty(shape.head_dim);
    let chunk_keys = BLOCK * CHUNK_BLOCKS;
    for chunk in (0..=position).step_by(chunk_keys) {
        let mut part = Partial::empty(shape.head_dim);
        for block in (chunk..(chunk + chunk_keys).min(position + 1)).step_by(BLOCK) {
            let first = shape.first_key(position).max(block);
            let end = (block + BLOCK).min(position + 1);
            if first < end {
                part.merge(&one_block(
                    queries,
                    row,
                    kv,
                    kv_head,
                    (block, first, end),
                    shape,
                    precision,
                ));
            }
        }
        total.merge(&part);
    }
    total
}

fn one_block(
    queries: &Coded,
    row: usize,
    kv: &CodedKv,
    kv_head: usize,
    (block, first, end): (usize, usize, usize),
    shape: &AttentionShape,
    precision: Precision,
) -> Partial {
    let kv_row = |key: usize| key * shape.kv_heads + kv_head;
    let cap = shape.score_cap();
    let score = |key: usize| {
        let score = row_product(queries, row, &kv.k, kv_row(key));
        cap.map_or(score, |cap| cap.of(score))
    };
    let scores: Vec<f32> = (first..end).map(score).collect();
    let max = ceil_to_int(
        scores
            .iter()
            .fold(f32::NEG_INFINITY, |m, &t| if t > m { t } else { m }),
    );
    // Probabilities stand in their slot of the block; masked slots hold 0.
    let mut p = [0.0; BLOCK];
    let mut folds = [0; BLOCK];
    for (key, score) in (first..end).zip(&scores) {
        p[key - block] = exp2(score - max as f32);
        folds[key - block] = kv.v.exp.data()[kv_row(key)];
    }
    let coded = code_rows(&p, BLOCK, Some(&folds), precision);
    let out = (0..shape.head_dim).map(|d| {
        let term = |key: usize| {
            i64::from(coded.q.data()[key - block])
                * i64::from(kv.v.q.data()[kv_row(key) * shape.head_dim + d])
        };
        let sum: i64 = (first..end).map(term).sum();
        (sum as f64 * pow2_f64(coded.exp.data()[0])) as f32
    });
    Partial {
        max: Some(max),
        sum: reduce::sum(&p),
        out: out.collect(),
    }
}

/// The product of a row of `a` and a row of `b`: exact, rounded once.
fn row_product(a: &Coded, row_a: usize, b: &Coded, row_b: usize) -> f32 {
    let (qa, qb) = (&a.q.data()[row_a * a.cols..], &b.q.data()[row_b * b.cols..]);
    let (ea, eb) = (a.exp.data()[row_a], b.exp.data()[row_b]);
    let sum: i64 = (0..a.cols)
        .map(|d| i64::from(qa[d]) * i64::from(qb[d]))
        .sum();
    (sum as f64 * pow2_f64(ea) * pow2_f64(eb)) as f32
}
