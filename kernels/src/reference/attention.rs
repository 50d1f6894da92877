//! Causal attention in blocks of keys: NUMERICS.md, section 5.
//!
//! Scores are in base 2: the factor `scale * log2(e)` is multiplied into q before it is coded.
//! Every maximum is an integer, so rescaling is exact and a kernel that keeps all blocks, one that
//! streams them and one that splits them over chunks agree.

use std::borrow::Cow;

use crate::KernelError;
use crate::coded::{Coded, Operand, Precision};
use crate::math::{LN_2, ceil_to_int, exp2, pow2_f32, pow2_f64};

use super::code::code_rows;
use super::reduce;

/// Keys of a block, by absolute position.
pub const BLOCK: usize = 128;
/// Blocks of a chunk: a decode kernel gives whole chunks to thread blocks.
pub const CHUNK_BLOCKS: usize = 8;
/// Sums this many powers of two below the maximum are dropped.
pub const DROP_BELOW: i32 = 60;

/// Heads and masks of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head h reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// A query sees itself and at most this many minus one keys before it.
    pub window: Option<u32>,
    /// Multiplies the scores: `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl AttentionShape {
    /// First key that the query at `position` sees.
    pub fn first_key(&self, position: usize) -> usize {
        self.window
            .map_or(0, |window| (position + 1).saturating_sub(window as usize))
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Keys and values of one sequence from position 0, each row one head of one token.
#[derive(Clone, Debug)]
pub struct CodedKv {
    /// Keys, `[tokens * kv_heads, head_dim]`.
    pub k: Coded,
    /// Values, of the same shape.
    pub v: Coded,
}

impl CodedKv {
    /// The codes on the host: themselves, or a copy of what lies on a GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn on_host(&self) -> Result<Cow<'_, Self>, KernelError> {
        let (k, v) = (self.k.on_host()?, self.v.on_host()?);
        if let (Cow::Borrowed(_), Cow::Borrowed(_)) = (&k, &v) {
            return Ok(Cow::Borrowed(self));
        }
        let (k, v) = (k.into_owned(), v.into_owned());
        Ok(Cow::Owned(Self { k, v }))
    }
}

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
    /// Integer maximum, or nothing before the first key.
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
/// `first_position..` over the keys of `kv` up to each query's own position.
pub fn forward(
    queries: &Coded,
    kv: &CodedKv,
    first_position: usize,
    shape: &AttentionShape,
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
        result.out.extend(total.out.iter().map(|o| o / total.sum));
        result.max.push(total.max.unwrap_or(0));
        result.sum.push(total.sum);
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
    let scores: Vec<f32> = (first..end)
        .map(|key| row_product(queries, row, &kv.k, kv_row(key)))
        .collect();
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
}

/// Gradients of the unscaled queries, the keys and the values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceGradients {
    /// `[tokens, heads * head_dim]`.
    pub dq: Vec<f32>,
    /// `[tokens, kv_heads * head_dim]`.
    pub dk: Vec<f32>,
    /// `[tokens, kv_heads * head_dim]`.
    pub dv: Vec<f32>,
}

impl SequenceGradients {
    /// Puts the tokens of `later` after these.
    pub fn append(&mut self, later: Self) {
        self.dq.extend(later.dq);
        self.dk.extend(later.dk);
        self.dv.extend(later.dv);
    }
}

/// The backward pass of one sequence: `p = exp2(t - M) * (1 / l)`, `ds = p * (dp - delta)`,
/// `dp = dO . v`, `delta = sum(dO * O)`; dq adds over key blocks, dk and dv over heads of the group
/// and then over query blocks, each block a coded product with its own exponents.
pub fn backward(
    input: BackwardInput<'_>,
    shape: &AttentionShape,
    precision: Precision,
) -> SequenceGradients {
    let (heads, dim) = (shape.heads, shape.head_dim);
    let tokens = input.queries.rows / heads;
    let mut gradients = SequenceGradients {
        dq: vec![0.0; tokens * heads * dim],
        dk: vec![0.0; tokens * shape.kv_heads * dim],
        dv: vec![0.0; tokens * shape.kv_heads * dim],
    };
    for head in 0..heads {
        let scores = head_scores(&input, head, tokens, shape);
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
    tokens: usize,
    shape: &AttentionShape,
) -> HeadScores {
    let mut scores = HeadScores {
        p: vec![0.0; tokens * tokens],
        ds: vec![0.0; tokens * tokens],
    };
    let kv_head = head / shape.group();
    for i in 0..tokens {
        let row = i * shape.heads + head;
        let at = row * shape.head_dim..(row + 1) * shape.head_dim;
        let delta = reduce::dot(&input.d_out[at.clone()], &input.out[at]);
        let inverse = 1.0 / input.sum[row];
        for j in shape.first_key(i)..=i {
            let kv_row = j * shape.kv_heads + kv_head;
            let t = row_product(input.queries, row, &input.kv.k, kv_row);
            let dp = row_product(input.d_out_coded, row, &input.kv.v, kv_row);
            let p = exp2(t - input.max[row] as f32) * inverse;
            scores.p[i * tokens + j] = p;
            scores.ds[i * tokens + j] = p * (dp - delta);
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
    super::matmul::matmul(left.by_rows(), right)
}
