//! Keys and values of many sequences in pages of a pool, and attention over them.

use super::attention::{self, AttentionShape, BLOCK, CodedKv};
use crate::KernelError;
use crate::coded::{Coded, Precision};

/// Tokens of a page: a block of attention, so that no kernel gathers.
pub const PAGE_TOKENS: usize = BLOCK;

/// New tokens `[first, first + count)` of one sequence, whose pages are these, in order. The keys
/// and values of the tokens before `first` are in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagedRun<'a> {
    /// Pages of the sequence, up to the last new token at least.
    pub pages: &'a [u32],
    /// Position of the first new token.
    pub first: usize,
    /// How many; at least one.
    pub count: usize,
}

impl PagedRun<'_> {
    /// The position after the last new token.
    pub fn end(&self) -> usize {
        self.first + self.count
    }

    /// The page of the token at `position`, and its place in it.
    pub(crate) fn place(&self, position: usize) -> (usize, usize) {
        let page = self.pages[position / PAGE_TOKENS];
        (page as usize, position % PAGE_TOKENS)
    }
}

/// Checks that every run has tokens, and page numbers below `pages` for them.
///
/// # Errors
/// [`KernelError::DoesNotFit`], naming the run.
pub(crate) fn check_runs(runs: &[PagedRun<'_>], pages: u32) -> Result<(), KernelError> {
    /// The most tokens that kernels count.
    const TOKENS_MAX: usize = (u32::MAX / 2) as usize;
    let refuse = |index: usize, reason: String| {
        let error = format!("run {index} of {}: {reason}", runs.len());
        Err(KernelError::DoesNotFit(error))
    };
    let mut total = 0usize;
    for (index, run) in runs.iter().enumerate() {
        if run.count == 0 {
            return refuse(index, "it has no tokens".to_string());
        }
        total = total.saturating_add(run.count);
        let end = run.first.saturating_add(run.count);
        if end.max(total) > TOKENS_MAX {
            return refuse(index, format!("more than {TOKENS_MAX} tokens"));
        }
        let needed = end.div_ceil(PAGE_TOKENS);
        if run.pages.len() < needed {
            let got = run.pages.len();
            return refuse(
                index,
                format!("{end} tokens need {needed} pages, got {got}"),
            );
        }
        if let Some(page) = run.pages[..needed].iter().find(|&&page| page >= pages) {
            return refuse(index, format!("page {page} of a pool of {pages}"));
        }
    }
    Ok(())
}

/// Checks that all pages of `runs`, which have been checked themselves, have been written;
/// `is_empty` tells whether a page has not.
///
/// # Errors
/// [`KernelError::DoesNotFit`], naming the run and the page.
pub(crate) fn check_written(
    runs: &[PagedRun<'_>],
    is_empty: impl Fn(usize) -> bool,
) -> Result<(), KernelError> {
    for (index, run) in runs.iter().enumerate() {
        let used = &run.pages[..run.end().div_ceil(PAGE_TOKENS)];
        if let Some(page) = used.iter().find(|page| is_empty(**page as usize)) {
            return Err(KernelError::DoesNotFit(format!(
                "run {index} of {}: page {page} is read before it is written",
                runs.len()
            )));
        }
    }
    Ok(())
}

/// Pages of some layers, token by token. A page is allocated when it is first written.
#[derive(Debug)]
pub struct PlainPages {
    kv_heads: usize,
    head_dim: usize,
    precision: Precision,
    /// `[layers, pages]`.
    pages: Vec<Option<PlainPage>>,
    /// Pages of a layer.
    count: usize,
}

/// 128 tokens of one sequence in one layer.
#[derive(Clone, Debug)]
struct PlainPage {
    k: Rows,
    v: Rows,
}

/// Coded rows, one for each (token, head).
#[derive(Clone, Debug)]
struct Rows {
    /// `[PAGE_TOKENS, kv_heads, head_dim]`.
    q: Vec<i16>,
    /// `[PAGE_TOKENS, kv_heads]`.
    exp: Vec<i32>,
}

impl PlainPages {
    /// `pages` pages in each of `layers` layers.
    pub fn new(layers: usize, shape: &AttentionShape, precision: Precision, pages: u32) -> Self {
        let count = pages as usize;
        Self {
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            precision,
            pages: vec![None; layers * count],
            count,
        }
    }

    /// Key heads of a token.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Puts the rows of `new` into the pages of `runs`, which have been checked.
    ///
    /// # Panics
    /// Where width or precision are others.
    pub fn write(&mut self, layer: usize, new: &CodedKv, runs: &[PagedRun<'_>]) {
        for coded in [&new.k, &new.v] {
            let width = (coded.cols, coded.precision);
            assert_eq!(width, (self.head_dim, self.precision), "write_pages: width");
        }
        let (heads, dim) = (self.kv_heads, self.head_dim);
        let positions = runs
            .iter()
            .flat_map(|run| (run.first..run.end()).map(|position| run.place(position)));
        for (token, (page, slot)) in positions.enumerate() {
            let page = &mut self.pages[layer * self.count + page];
            let page = page.get_or_insert_with(|| PlainPage {
                k: Rows::new(heads, dim),
                v: Rows::new(heads, dim),
            });
            page.k.put(slot, &new.k, token, heads);
            page.v.put(slot, &new.v, token, heads);
        }
    }

    /// Checks that all pages of `runs`, which have been checked themselves, have been written.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`], naming the run and the page.
    pub fn check_written(&self, layer: usize, runs: &[PagedRun<'_>]) -> Result<(), KernelError> {
        check_written(runs, |page| self.pages[layer * self.count + page].is_none())
    }

    /// Keys and values of a sequence up to the end of a run, in one piece.
    fn gathered(&self, layer: usize, run: &PagedRun<'_>) -> CodedKv {
        let gather = |rows: fn(&PlainPage) -> &Rows| {
            let (mut q, mut exp) = (Vec::new(), Vec::new());
            for position in 0..run.end() {
                let (page, slot) = run.place(position);
                let page = self.pages[layer * self.count + page].as_ref();
                let rows = rows(page.expect("pages are checked before they are read"));
                let width = self.kv_heads * self.head_dim;
                q.extend_from_slice(&rows.q[slot * width..(slot + 1) * width]);
                exp.extend_from_slice(&rows.exp[slot * self.kv_heads..(slot + 1) * self.kv_heads]);
            }
            Coded {
                rows: run.end() * self.kv_heads,
                cols: self.head_dim,
                precision: self.precision,
                q: q.into(),
                exp: exp.into(),
            }
        };
        CodedKv {
            k: gather(|page| &page.k),
            v: gather(|page| &page.v),
        }
    }
}

impl Rows {
    fn new(heads: usize, dim: usize) -> Self {
        Self {
            q: vec![0; PAGE_TOKENS * heads * dim],
            exp: vec![0; PAGE_TOKENS * heads],
        }
    }

    /// Puts the heads of one token into a slot.
    fn put(&mut self, slot: usize, new: &Coded, token: usize, heads: usize) {
        let width = heads * new.cols;
        self.q[slot * width..(slot + 1) * width]
            .copy_from_slice(&new.q.data()[token * width..(token + 1) * width]);
        self.exp[slot * heads..(slot + 1) * heads]
            .copy_from_slice(&new.exp.data()[token * heads..(token + 1) * heads]);
    }
}

/// Attention of the coded `queries` of `runs`, one run after another, over keys and values in one
/// piece: `[tokens, heads * head_dim]`. Runs and pages have been checked.
pub fn forward(
    queries: &Coded,
    pages: &PlainPages,
    layer: usize,
    runs: &[PagedRun<'_>],
    shape: &AttentionShape,
    sinks: Option<&[f32]>,
    precision: Precision,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(queries.rows * shape.head_dim);
    let mut row = 0;
    for run in runs {
        let rows = run.count * shape.heads;
        let queries = queries.part(row, rows);
        let kv = pages.gathered(layer, run);
        let one = attention::forward(&queries, &kv, run.first, shape, sinks, precision);
        out.extend(one.out);
        row += rows;
    }
    out
}
