//! The backward pass of attention.

use super::{AttentionShape, BLOCK, CodedKv, row_product, sink_gradient};
use crate::coded::{Coded, Operand, Precision};
use crate::math::{LN_2, exp2};
use crate::reference::code::code_rows;
use crate::reference::matmul::matmul;
use crate::reference::reduce;

/// Everything that the backward pass of one sequence reads. Queries start at position 0.
#[derive(Clone, Copy, Debug)]
pub struct BackwardInput<'a> {
    /// Coded scaled queries, `[tokens * heads, head_dim]`.
    pub queries: &'a Coded,
    /// Coded keys and values.
    pub kv: &'a CodedKv,
    /// What the forward pass gave, `[tokens, heads * head_dim]`.
    pub out: &'a [f32],
    /// Its integer maxima, one for each (token, head).
    pub max: &'a [i32],
    /// Its denominators, one for each (token, head).
    pub sum: &'a [f32],
    /// Gradient of the output, `[tokens, heads * head_dim]`.
    pub d_out: &'a [f32],
    /// Codes of `d_out`, `[tokens * heads, head_dim]`.
    pub d_out_coded: &'a Coded,
    /// The sinks of the forward pass, `[heads]`.
    pub sinks: Option<&'a [f32]>,
}

impl BackwardInput<'_> {
    /// What each query adds to the gradients of the sinks, `[tokens, heads]`: nothing where there
    /// are none. `delta` is `[tokens, heads]`.
    pub fn sink_terms(&self, delta: &[f32]) -> Vec<f32> {
        let Some(sinks) = self.sinks else {
            return Vec::new();
        };
        let term = |(row, &delta): (usize, &f32)| {
            let sink = sinks[row % sinks.len()];
            sink_gradient(sink, self.max[row], 1.0 / self.sum[row], delta)
        };
        delta.iter().enumerate().map(term).collect()
    }
}

/// Gradients of the unscaled queries, the keys, the values and the sinks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceGradients {
    /// `[tokens, heads * head_dim]`.
    pub dq: Vec<f32>,
    /// `[tokens, kv_heads * head_dim]`.
    pub dk: Vec<f32>,
    /// `[tokens, kv_heads * head_dim]`.
    pub dv: Vec<f32>,
    /// What each query adds to the gradients of the sinks, `[tokens, heads]`: empty where there
    /// are none.
    pub sink_terms: Vec<f32>,
}

impl SequenceGradients {
    /// Puts the tokens of `later` after these.
    pub fn append(&mut self, later: Self) {
        self.dq.extend(later.dq);
        self.dk.extend(later.dk);
        self.dv.extend(later.dv);
        self.sink_terms.extend(later.sink_terms);
    }
}

/// The backward pass of one sequence: `p = exp2(t - M) * (1 / l)`, `ds = p * (dp - delta)`,
/// `dp = dO . v`, `delta = sum(dO * O)`, where p in ds is multiplied by the slope of a soft cap; dq
/// adds over key blocks, dk and dv over heads of the group and then over query blocks, each block a
/// coded product with its own exponents.
pub fn backward(
    input: BackwardInput<'_>,
    shape: &AttentionShape,
    precision: Precision,
) -> SequenceGradients {
    let (heads, dim) = (shape.heads, shape.head_dim);
    let tokens = input.queries.rows / heads;
    let row_of = |row: usize| row * dim..(row + 1) * dim;
    let delta: Vec<f32> = (0..input.queries.rows)
        .map(|row| reduce::dot(&input.d_out[row_of(row)], &input.out[row_of(row)]))
        .collect();
    let mut gradients = SequenceGradients {
        dq: vec![0.0; tokens * heads * dim],
        dk: vec![0.0; tokens * shape.kv_heads * dim],
        dv: vec![0.0; tokens * shape.kv_heads * dim],
        sink_terms: input.sink_terms(&delta),
    };
    for head in 0..heads {
        let scores = head_scores(&input, head, &delta, shape);
        add_dq(&mut gradients.dq, &scores, &input, head, shape, precision);
        add_dk_dv(&mut gradients, &scores, &input, head, shape, precision);
    }
    gradients.dq.iter_mut().for_each(|v| *v *= shape.scale);
    gradients.dk.iter_mut().for_each(|v| *v *= LN_2);
    gradients
}

/// p and ds of one head, `[tokens, tokens]`, 0 where masked.
struct HeadScores {
    p: Vec<f32>,
    ds: Vec<f32>,
}

fn head_scores(
    input: &BackwardInput<'_>,
    head: usize,
    delta: &[f32],
    shape: &AttentionShape,
) -> HeadScores {
    let tokens = delta.len() / shape.heads;
    let cap = shape.score_cap();
    let mut scores = HeadScores {
        p: vec![0.0; tokens * tokens],
        ds: vec![0.0; tokens * tokens],
    };
    let kv_head = head / shape.group();
    for i in 0..tokens {
        let row = i * shape.heads + head;
        let inverse = 1.0 / input.sum[row];
        for j in shape.first_key(i)..=i {
            let kv_row = j * shape.kv_heads + kv_head;
            let t = row_product(input.queries, row, &input.kv.k, kv_row);
            let dp = row_product(input.d_out_coded, row, &input.kv.v, kv_row);
            let (t, slope) = cap.map_or((t, 1.0), |cap| cap.with_slope(t));
            let p = exp2(t - input.max[row] as f32) * inverse;
            scores.p[i * tokens + j] = p;
            scores.ds[i * tokens + j] = p * slope * (dp - delta[row]);
        }
    }
    scores
}

fn add_dq(
    dq: &mut [f32],
    scores: &HeadScores,
    input: &BackwardInput<'_>,
    head: usize,
    shape: &AttentionShape,
    precision: Precision,
) {
    let (dim, tokens) = (shape.head_dim, input.queries.rows / shape.heads);
    for i in 0..tokens {
        for block in (0..=i).step_by(BLOCK) {
            let keys = block..(block + BLOCK).min(tokens);
            let rows: Vec<usize> = keys
                .clone()
                .map(|j| j * shape.kv_heads + head / shape.group())
                .collect();
            let values = &scores.ds[i * tokens + keys.start..i * tokens + keys.end];
            let product = folded_product(values, &input.kv.k, &rows, precision);
            let at = (i * shape.heads + head) * dim;
            dq[at..at + dim]
                .iter_mut()
                .zip(product)
                .for_each(|(sum, v)| *sum += v);
        }
    }
}

fn add_dk_dv(
    gradients: &mut SequenceGradients,
    scores: &HeadScores,
    input: &BackwardInput<'_>,
    head: usize,
    shape: &AttentionShape,
    precision: Precision,
) {
    let (dim, tokens) = (shape.head_dim, input.queries.rows / shape.heads);
    for j in 0..tokens {
        let at = (j * shape.kv_heads + head / shape.group()) * dim;
        for block in (j / BLOCK * BLOCK..tokens).step_by(BLOCK) {
            let queries = block..(block + BLOCK).min(tokens);
            let rows: Vec<usize> = queries.clone().map(|i| i * shape.heads + head).collect();
            let column = |m: &[f32]| {
                queries
                    .clone()
                    .map(|i| m[i * tokens + j])
                    .collect::<Vec<f32>>()
            };
            let dk = folded_product(&column(&scores.ds), input.queries, &rows, precision);
            let dv = folded_product(&column(&scores.p), input.d_out_coded, &rows, precision);
            gradients.dk[at..at + dim]
                .iter_mut()
                .zip(dk)
                .for_each(|(sum, v)| *sum += v);
            gradients.dv[at..at + dim]
                .iter_mut()
                .zip(dv)
                .for_each(|(sum, v)| *sum += v);
        }
    }
}

/// `sum_j values[j] * coded[rows[j]]`, the exponents of the rows folded into the values.
fn folded_product(values: &[f32], coded: &Coded, rows: &[usize], precision: Precision) -> Vec<f32> {
    let folds: Vec<i32> = rows.iter().map(|&row| coded.exp.data()[row]).collect();
    let left = code_rows(values, values.len(), Some(&folds), precision);
    let gathered: Vec<i16> = rows
        .iter()
        .flat_map(|&row| {
            coded.q.data()[row * coded.cols..(row + 1) * coded.cols]
                .iter()
                .copied()
        })
        .collect();
    let right = Operand {
        q: &gathered,
        rows: coded.cols,
        depth: rows.len(),
        row_stride: 1,
        depth_stride: coded.cols,
        exp: &[],
        precision: coded.precision,
    };
    matmul(left.by_rows(), right)
}
