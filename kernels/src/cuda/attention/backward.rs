//! The backward pass: dq by queries, dk and dv by keys.

use super::{Codes, Heads, ROWS, THREADS, cap_factors, kernel, sinks_on};
use crate::Tensor;
use crate::coded::{Coded, Precision};
use crate::cuda::grids::any_grid;
use crate::cuda::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::reference::attention::{
    AttentionCodes, AttentionGradients, AttentionOut, AttentionShape, ScoreCap,
};
use crate::reference::lengths::{LengthGroup, Lengths};

/// Gradients of the unscaled queries, the keys and the values of runs of tokens that see only
/// themselves, from the gradient of the output and its codes; and what each query adds to the
/// gradients of the sinks, `[tokens, heads]`, where there are some.
pub(crate) fn backward(
    cuda: &Cuda,
    codes: &AttentionCodes,
    forward: &AttentionOut,
    d_out: (&Tensor, &Coded),
    documents: &Lengths,
    shape: &AttentionShape,
    sinks: Option<&Tensor>,
    precision: Precision,
) -> Result<(AttentionGradients, Option<Tensor>)> {
    let mut groups = documents.groups();
    let (first, second) = (groups.next(), groups.next());
    if second.is_none() {
        let alike = first.unwrap_or(LengthGroup::NONE);
        return alike_backward(cuda, codes, forward, d_out, alike, shape, sinks, precision);
    }
    let tokens = documents.tokens();
    let [dq, dk, dv] = [shape.heads, shape.kv_heads, shape.kv_heads]
        .map(|heads| cuda.alloc::<f32>(tokens * heads * shape.head_dim));
    let (dq, dk, dv) = (dq?, dk?, dv?);
    let terms = match sinks {
        Some(_) => Some(cuda.alloc::<f32>(tokens * shape.heads)?),
        None => None,
    };
    for group in documents.groups() {
        let (first, count) = (group.first_token, group.tokens());
        let rows = (first * shape.heads, count * shape.heads);
        let part = codes.part(first..first + count, shape);
        let of_part = AttentionOut {
            out: forward.out.rows(first, count),
            max: forward.max.part(rows.0, rows.1),
            sum: Tensor::new(&[rows.1], forward.sum.on(cuda)?.part(rows.0, rows.1))?,
        };
        let d_part = (&d_out.0.rows(first, count), &d_out.1.part(rows.0, rows.1));
        let (gradients, some) = alike_backward(
            cuda, &part, &of_part, d_part, group, shape, sinks, precision,
        )?;
        let put = |from: &Tensor, to: &Slice<f32>, width: usize| -> Result<()> {
            let to = to.part(first * width, count * width);
            Ok(cuda.copy(&from.on(cuda)?, &to)?)
        };
        put(&gradients.dq, &dq, shape.heads * shape.head_dim)?;
        put(&gradients.dk, &dk, shape.kv_heads * shape.head_dim)?;
        put(&gradients.dv, &dv, shape.kv_heads * shape.head_dim)?;
        if let (Some(some), Some(terms)) = (some, &terms) {
            put(&some, terms, shape.heads)?;
        }
    }
    let whole = |heads: usize, gradient: Slice<f32>| {
        Tensor::new(&[tokens, heads * shape.head_dim], gradient)
    };
    let gradients = AttentionGradients {
        dq: whole(shape.heads, dq)?,
        dk: whole(shape.kv_heads, dk)?,
        dv: whole(shape.kv_heads, dv)?,
        d_sinks: None,
    };
    let terms = terms.map(|terms| Tensor::new(&[tokens, shape.heads], terms));
    Ok((gradients, terms.transpose()?))
}

/// As [`backward`], for documents of one length.
fn alike_backward(
    cuda: &Cuda,
    codes: &AttentionCodes,
    forward: &AttentionOut,
    (d_out, d_out_coded): (&Tensor, &Coded),
    LengthGroup {
        count: sequences,
        len: tokens,
        ..
    }: LengthGroup,
    shape: &AttentionShape,
    sinks: Option<&Tensor>,
    precision: Precision,
) -> Result<(AttentionGradients, Option<Tensor>)> {
    let (queries, kv) = (&codes.queries, &codes.kv);
    let backward = Backward {
        cuda,
        heads: Heads::new(shape, tokens, tokens),
        cap: shape.score_cap(),
        sequences: sequences as u32,
        tokens: tokens as u32,
        precisions: [
            queries.precision,
            kv.k.precision,
            kv.v.precision,
            d_out_coded.precision,
            precision,
        ],
        queries: Codes::on(cuda, queries)?,
        keys: Codes::on(cuda, &kv.k)?,
        values: Codes::on(cuda, &kv.v)?,
        d_out: Codes::on(cuda, d_out_coded)?,
        max: forward.max.on(cuda)?,
        delta: cuda.alloc(queries.rows)?,
        inverse: cuda.alloc(queries.rows)?,
    };
    let dq = cuda.alloc(queries.rows * shape.head_dim)?;
    let dk = cuda.alloc(kv.k.rows * shape.head_dim)?;
    let dv = cuda.alloc(kv.v.rows * shape.head_dim)?;
    if queries.rows > 0 {
        let (out, sum) = (forward.out.on(cuda)?, forward.sum.on(cuda)?);
        backward.rows(&d_out.on(cuda)?, &out, &sum)?;
        backward.by_query(shape.scale, &dq)?;
        backward.by_key(&dk, &dv)?;
    }
    let terms = match sinks_on(cuda, sinks)? {
        None => None,
        Some(sinks) => {
            let terms = backward.sink_terms(&sinks)?;
            Some(Tensor::new(&[sequences * tokens, shape.heads], terms)?)
        }
    };
    let whole = |heads: usize, gradient: Slice<f32>| {
        Tensor::new(&[sequences * tokens, heads * shape.head_dim], gradient)
    };
    let gradients = AttentionGradients {
        dq: whole(shape.heads, dq)?,
        dk: whole(shape.kv_heads, dk)?,
        dv: whole(shape.kv_heads, dv)?,
        d_sinks: None,
    };
    Ok((gradients, terms))
}

/// A backward pass under way.
struct Backward<'a> {
    cuda: &'a Cuda,
    heads: Heads,
    cap: Option<ScoreCap>,
    sequences: u32,
    tokens: u32,
    /// Precisions of queries, keys, values, d_out and probabilities.
    precisions: [Precision; 5],
    queries: Codes,
    keys: Codes,
    values: Codes,
    d_out: Codes,
    /// `[sequences, tokens, heads]`, as those below.
    max: Slice<i32>,
    delta: Slice<f32>,
    inverse: Slice<f32>,
}

/// The arguments that both kernels begin with, then their own.
macro_rules! with_inputs {
    ($backward:expr, $($own:expr),*) => {
        arguments![
            &$backward.queries.q,
            &$backward.queries.exp,
            &$backward.keys.q,
            &$backward.keys.exp,
            &$backward.values.q,
            &$backward.values.exp,
            &$backward.d_out.q,
            &$backward.d_out.exp,
            &$backward.max,
            &$backward.inverse,
            &$backward.delta,
            $backward.heads.heads,
            $backward.heads.kv_heads,
            $backward.heads.dim,
            $backward.heads.window,
            cap_factors($backward.cap).0,
            cap_factors($backward.cap).1,
            $backward.precisions[4].limit(),
            $backward.tokens,
            $($own),*
        ]
    };
}

impl Backward<'_> {
    fn kernel(&self, names: [&'static str; 3]) -> Kernel {
        kernel("attention_backward", (self.cap, &self.precisions), names)
    }

    /// delta and inverse of each row.
    fn rows(&self, d_out: &Slice<f32>, out: &Slice<f32>, sum: &Slice<f32>) -> Result<()> {
        let rows = sum.len();
        let kernel = Kernel {
            module: "attention_backward",
            name: "attention_delta",
        };
        // One warp per row.
        let grid = any_grid(rows.saturating_mul(32));
        let dim = self.heads.dim;
        let arguments = arguments![
            d_out,
            out,
            sum,
            &self.delta,
            &self.inverse,
            rows as u64,
            dim
        ];
        self.cuda.launch(kernel, grid, arguments)
    }

    /// What each query adds to the gradients of the sinks; after [`Self::rows`].
    fn sink_terms(&self, sinks: &Slice<f32>) -> Result<Slice<f32>> {
        let rows = self.delta.len();
        let terms = self.cuda.alloc(rows)?;
        if rows > 0 {
            let kernel = Kernel {
                module: "attention_backward",
                name: "attention_sink_terms",
            };
            let arguments = arguments![
                sinks,
                &self.max,
                &self.inverse,
                &self.delta,
                &terms,
                rows as u64,
                self.heads.heads
            ];
            self.cuda.launch(kernel, any_grid(rows), arguments)?;
        }
        Ok(terms)
    }

    fn by_query(&self, scale: f32, dq: &Slice<f32>) -> Result<()> {
        let tiles = self.heads.tiles(self.tokens);
        let grid = Grid::new(tiles * self.sequences, THREADS).y(self.heads.kv_heads);
        let kernel = self.kernel(["attention_dq_1", "attention_dq_2", "attention_dq_capped"]);
        let arguments = with_inputs!(self, scale, dq);
        self.cuda.launch(kernel, grid, arguments)
    }

    fn by_key(&self, dk: &Slice<f32>, dv: &Slice<f32>) -> Result<()> {
        let tiles = self.tokens.div_ceil(ROWS);
        let grid = Grid::new(tiles * self.sequences, THREADS).y(self.heads.kv_heads);
        let names = [
            "attention_dk_dv_1",
            "attention_dk_dv_2",
            "attention_dk_dv_capped",
        ];
        let kernel = self.kernel(names);
        let arguments = with_inputs!(self, dk, dv);
        self.cuda.launch(kernel, grid, arguments)
    }
}
