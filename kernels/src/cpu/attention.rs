//! Attention in blocks of 128 queries by 128 keys, each block two exact products and a softmax.
//! Twin of [`crate::reference::attention`].

mod backward;
mod digits;
mod forward;
mod paged;
mod quads;
mod rows;

pub use backward::backward;
pub use forward::forward;
pub use paged::paged;

use crate::coded::{Coded, Operand};

/// One head of a run of tokens in `[tokens * heads, head_dim]` codes.
struct HeadBlock<'a> {
    coded: &'a Coded,
    heads: usize,
    head: usize,
    start: usize,
    count: usize,
    exp: Vec<i32>,
}

impl<'a> HeadBlock<'a> {
    fn new(coded: &'a Coded, heads: usize, head: usize, start: usize, count: usize) -> Self {
        let exp = coded.exp.data();
        let exp = (start..start + count)
            .map(|token| exp[token * heads + head])
            .collect();
        Self {
            coded,
            heads,
            head,
            start,
            count,
            exp,
        }
    }

    fn first(&self) -> &'a [i16] {
        &self.coded.q.data()[(self.start * self.heads + self.head) * self.coded.cols..]
    }

    /// Tokens as rows, summed over the features of the head.
    fn by_tokens(&self) -> Operand<'_> {
        Operand {
            q: self.first(),
            rows: self.count,
            depth: self.coded.cols,
            row_stride: self.heads * self.coded.cols,
            depth_stride: 1,
            exp: &self.exp,
            precision: self.coded.precision,
        }
    }

    /// Features as rows, summed over the tokens; their exponents are folded into the other side.
    fn by_features(&self) -> Operand<'_> {
        Operand {
            q: self.first(),
            rows: self.coded.cols,
            depth: self.count,
            row_stride: 1,
            depth_stride: self.heads * self.coded.cols,
            exp: &[],
            precision: self.coded.precision,
        }
    }
}
