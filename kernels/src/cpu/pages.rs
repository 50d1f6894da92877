//! Pages of keys and values in the memory of the process.

use crate::KernelError;
use crate::coded::{Coded, Precision};
use crate::ops::{AttentionShape, CodedKv, PAGE_TOKENS, PagedRun};

/// Pages of some layers. A page is allocated when it is first written.
#[derive(Debug)]
pub struct HostPages {
    kv_heads: usize,
    head_dim: usize,
    precision: Precision,
    /// `[layers, pages]`.
    pages: Vec<Option<Page>>,
    /// Pages of a layer.
    count: usize,
}

/// 128 tokens of one sequence in one layer.
#[derive(Clone, Debug)]
struct Page {
    /// By key head: keys `[PAGE_TOKENS, head_dim]`, then values `[head_dim, PAGE_TOKENS]`, so that the
    /// product with either sums over what lies side by side.
    codes: Vec<i16>,
    /// By key head: of keys, then of values, `[PAGE_TOKENS]` each.
    exps: Vec<i32>,
}

/// What one key head has in a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageHead<'a> {
    /// `[PAGE_TOKENS, head_dim]`.
    pub(crate) keys: &'a [i16],
    /// `[head_dim, PAGE_TOKENS]`.
    pub(crate) values: &'a [i16],
    /// Of keys.
    pub(crate) key_exps: &'a [i32],
    /// Of values.
    pub(crate) value_exps: &'a [i32],
}

impl HostPages {
    /// `pages` pages in each of `layers` layers.
    pub(crate) fn new(
        layers: usize,
        shape: &AttentionShape,
        precision: Precision,
        pages: u32,
    ) -> Self {
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
    pub(crate) fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Precision of the codes.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Puts the rows of `new` into the pages of `runs`, which have been checked.
    ///
    /// # Panics
    /// Where width or precision are others.
    pub(crate) fn write(&mut self, layer: usize, new: &CodedKv, runs: &[PagedRun<'_>]) {
        for coded in [&new.k, &new.v] {
            let width = (coded.cols, coded.precision);
            assert_eq!(width, (self.head_dim, self.precision), "write_pages: width");
        }
        let (kv_heads, dim) = (self.kv_heads, self.head_dim);
        let (k, k_exp) = (new.k.q.data(), new.k.exp.data());
        let (v, v_exp) = (new.v.q.data(), new.v.exp.data());
        let tokens = runs.iter().flat_map(|run| {
            let positions = run.first..run.end();
            positions.map(|position| run.place(position))
        });
        for (token, (page, slot)) in tokens.enumerate() {
            let page = &mut self.pages[layer * self.count + page];
            let page = page.get_or_insert_with(|| Page::new(kv_heads, dim));
            for head in 0..kv_heads {
                let row = token * kv_heads + head;
                let codes = row * dim..(row + 1) * dim;
                page.put(head, slot, (&k[codes.clone()], k_exp[row]), (&v[codes], v_exp[row]));
            }
        }
    }

    /// What `head` has in a page that has been written.
    pub(crate) fn head(&self, layer: usize, page: usize, head: usize) -> PageHead<'_> {
        let page = self.pages[layer * self.count + page].as_ref();
        let page = page.expect("pages are checked before they are read");
        let half = PAGE_TOKENS * self.head_dim;
        let (codes, exps) = (&page.codes[2 * head * half..], &page.exps[2 * head * PAGE_TOKENS..]);
        PageHead {
            keys: &codes[..half],
            values: &codes[half..2 * half],
            key_exps: &exps[..PAGE_TOKENS],
            value_exps: &exps[PAGE_TOKENS..2 * PAGE_TOKENS],
        }
    }

    /// That all pages of `runs`, which have been checked, have been written.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`], naming the run and the page.
    pub(crate) fn check_written(
        &self,
        layer: usize,
        runs: &[PagedRun<'_>],
    ) -> Result<(), KernelError> {
        for (index, run) in runs.iter().enumerate() {
            let used = &run.pages[..run.end().div_ceil(PAGE_TOKENS)];
            let is_empty = |page: &&u32| self.pages[layer * self.count + **page as usize].is_none();
            if let Some(page) = used.iter().find(is_empty) {
                return Err(KernelError::DoesNotFit(format!(
                    "run {index} of {}: page {page} is read before it is written",
                    runs.len()
                )));
            }
        }
        Ok(())
    }

    /// Keys and values of a sequence up to the end of a run, in one piece.
    pub(crate) fn gathered(&self, layer: usize, run: &PagedRun<'_>) -> CodedKv {
        let (rows, dim) = (run.end() * self.kv_heads, self.head_dim);
        let (mut k, mut k_exp) = (Vec::with_capacity(rows * dim), Vec::with_capacity(rows));
        let (mut v, mut v_exp) = (Vec::with_capacity(rows * dim), Vec::with_capacity(rows));
        for position in 0..run.end() {
            let (page, slot) = run.place(position);
            for head in 0..self.kv_heads {
                let page = self.head(layer, page, head);
                k.extend_from_slice(&page.keys[slot * dim..(slot + 1) * dim]);
                v.extend((0..dim).map(|d| page.values[d * PAGE_TOKENS + slot]));
                k_exp.push(page.key_exps[slot]);
                v_exp.push(page.value_exps[slot]);
            }
        }
        let coded = |q: Vec<i16>, exp: Vec<i32>| Coded {
            rows,
            cols: dim,
            precision: self.precision,
            q: q.into(),
            exp: exp.into(),
        };
        CodedKv {
            k: coded(k, k_exp),
            v: coded(v, v_exp),
        }
    }
}

impl Page {
    fn new(kv_heads: usize, head_dim: usize) -> Self {
        let rows = 2 * PAGE_TOKENS * kv_heads;
        Self {
            codes: vec![0; rows * head_dim],
            exps: vec![0; rows],
        }
    }

    /// Puts the key and the value of one head of one token, each with its exponent.
    fn put(&mut self, head: usize, slot: usize, key: (&[i16], i32), value: (&[i16], i32)) {
        let dim = key.0.len();
        let half = PAGE_TOKENS * dim;
        let codes = &mut self.codes[2 * head * half..2 * (head + 1) * half];
        let (keys, values) = codes.split_at_mut(half);
        keys[slot * dim..(slot + 1) * dim].copy_from_slice(key.0);
        for (line, &code) in values.chunks_exact_mut(PAGE_TOKENS).zip(value.0) {
            line[slot] = code;
        }
        let exps = &mut self.exps[2 * head * PAGE_TOKENS..];
        exps[slot] = key.1;
        exps[PAGE_TOKENS + slot] = value.1;
    }
}
