//! Keys and values of one sequence in codes of 8 bits, in pages that grow, and attention over them.

use super::Cpu;
use super::attention;
use super::pages::HostPages;
use crate::coded::{Coded, Precision};
use crate::reference::attention::{AttentionShape, CodedKv};
use crate::reference::pages::{PAGE_TOKENS, PagedRun};

/// Tokens from which on products of many rows at once, over codes that are first widened to 16
/// bits, are faster than those of single rows over pages.
const MANY: usize = 32;

/// Coded keys and values of one sequence in one layer, from position 0.
#[derive(Clone, Debug)]
pub struct HostKeys {
    /// Of one layer; page i has the tokens from 128 i on.
    pages: HostPages,
    table: Vec<u32>,
    tokens: usize,
}

impl HostKeys {
    /// Keys and values of no tokens.
    pub(crate) fn new(shape: &AttentionShape) -> Self {
        Self {
            pages: HostPages::new(1, shape, Precision::I8, 0),
            table: Vec::new(),
            tokens: 0,
        }
    }

    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Puts the keys and values of new tokens after those that are there.
    ///
    /// # Panics
    /// Where their width or precision is another one.
    pub(crate) fn append(&mut self, new: &CodedKv) {
        let count = new.k.rows / self.pages.kv_heads();
        if count == 0 {
            return;
        }
        let pages = (self.tokens + count).div_ceil(PAGE_TOKENS);
        self.pages.grow(pages);
        self.table.extend(self.table.len() as u32..pages as u32);
        let run = PagedRun {
            pages: &self.table,
            first: self.tokens,
            count,
        };
        self.pages.write(0, new, &[run]);
        self.tokens += count;
    }
}

/// Attention of the coded `queries`, the first of which stands at `first`, over the keys up to each
/// query's own position: `[tokens, heads * head_dim]`.
pub(crate) fn attend(
    cpu: &Cpu,
    queries: &Coded,
    keys: &HostKeys,
    first: usize,
    shape: &AttentionShape,
    sinks: Option<&[f32]>,
    precision: Precision,
) -> Vec<f32> {
    let run = PagedRun {
        pages: &keys.table,
        first,
        count: queries.rows / shape.heads,
    };
    if run.count >= MANY {
        let kv = keys.pages.gathered(0, &run);
        return attention::forward(cpu, queries, &kv, first, shape, sinks, precision).out;
    }
    attention::paged(
        cpu,
        queries,
        &keys.pages,
        0,
        &[run],
        shape,
        sinks,
        precision,
    )
}
