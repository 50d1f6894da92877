//! Pages of keys and values in the memory of the process.

use crate::KernelError;
use crate::coded::{Coded, Precision};
use crate::math::pow2_f64;
use crate::reference::attention::{AttentionShape, CodedKv};
use crate::reference::code::EMPTY;
use crate::reference::pages::{PAGE_TOKENS, PagedRun, check_written};

/// Columns of what lies in pages come in multiples of it: the 32-bit lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Pages of some layers. A page is allocated when it is first written.
#[derive(Debug)]
pub struct HostPages {
    sizes: Sizes,
    precision: Precision,
    /// `[layers, pages]`.
    pages: Vec<Option<Page>>,
    /// Pages of a layer.
    count: usize,
}

/// The shape of a page.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    kv_heads: usize,
    head_dim: usize,
}

impl Sizes {
    /// Codes of the keys of one head: pairs of features, then tokens.
    fn keys(self) -> usize {
        self.head_dim.next_multiple_of(2) * PAGE_TOKENS
    }

    /// Features of a value, filled up to whole vectors.
    fn width(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Codes of the values of one head: pairs of tokens, then features.
    fn values(self) -> usize {
        self.width() * PAGE_TOKENS
    }
}

/// 128 tokens of one sequence in one layer, head by head, as products of single rows take them.
#[derive(Clone, Debug)]
struct Page {
    /// `[kv_heads, head_dim / 2, PAGE_TOKENS, 2]`.
    keys: Vec<i16>,
    /// `[kv_heads, PAGE_TOKENS / 2, width, 2]`.
    values: Vec<i16>,
    /// `2^exp` of each key, `[kv_heads, PAGE_TOKENS]`, as all below.
    key_scales: Vec<f64>,
    key_exps: Vec<i32>,
    value_exps: Vec<i32>,
    /// `2^exp` of each value; NaN where f32 does not hold it as a normal number.
    value_scales: Vec<f32>,
}

/// What one key head has in a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageHead<'a> {
    /// `[head_dim / 2, PAGE_TOKENS, 2]`.
    pub(crate) keys: &'a [i16],
    /// `[PAGE_TOKENS / 2, width, 2]`, `width` being `head_dim` filled up to whole vectors.
    pub(crate) values: &'a [i16],
    /// `2^exp` of each key.
    pub(crate) key_scales: &'a [f64],
    /// Exponents of values.
    pub(crate) value_exps: &'a [i32],
    /// `2^exp` of each value; NaN where f32 does not hold it as a normal number.
    pub(crate) value_scales: &'a [f32],
    key_exps: &'a [i32],
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
            sizes: Sizes {
                kv_heads: shape.kv_heads,
                head_dim: shape.head_dim,
            },
            precision,
            pages: vec![None; layers * count],
            count,
        }
    }

    /// Bytes of a page in one layer.
    pub(crate) fn page_bytes(shape: &AttentionShape) -> usize {
        let sizes = Sizes {
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        };
        let codes = size_of::<i16>() * (sizes.keys() + sizes.values());
        let exps = size_of::<f64>() + size_of::<f32>() + 2 * size_of::<i32>();
        shape.kv_heads * (codes + exps * PAGE_TOKENS)
    }

    /// Key heads of a token.
    pub(crate) fn kv_heads(&self) -> usize {
        self.sizes.kv_heads
    }

    /// Puts the rows of `new` into the pages of `runs`, which have been checked.
    ///
    /// # Panics
    /// Where width or precision are others.
    pub(crate) fn write(&mut self, layer: usize, new: &CodedKv, runs: &[PagedRun<'_>]) {
        let Sizes { kv_heads, head_dim } = self.sizes;
        for coded in [&new.k, &new.v] {
            let width = (coded.cols, coded.precision);
            assert_eq!(width, (head_dim, self.precision), "write_pages: width");
        }
        let (k, k_exp) = (new.k.q.data(), new.k.exp.data());
        let (v, v_exp) = (new.v.q.data(), new.v.exp.data());
        let tokens = runs.iter().flat_map(|run| {
            let positions = run.first..run.end();
            positions.map(|position| run.place(position))
        });
        for (token, (page, slot)) in tokens.enumerate() {
            let page = &mut self.pages[layer * self.count + page];
            let page = page.get_or_insert_with(|| Page::new(self.sizes));
            for head in 0..kv_heads {
                let row = token * kv_heads + head;
                let codes = row * head_dim..(row + 1) * head_dim;
                page.put_key(self.sizes, (head, slot), &k[codes.clone()], k_exp[row]);
                page.put_value(self.sizes, (head, slot), &v[codes], v_exp[row]);
            }
        }
    }

    /// What `head` has in a page that has been written.
    pub(crate) fn head(&self, layer: usize, page: usize, head: usize) -> PageHead<'_> {
        let page = self.pages[layer * self.count + page].as_ref();
        let page = page.expect("pages are checked before they are read");
        let (keys, values) = (self.sizes.keys(), self.sizes.values());
        let slots = head * PAGE_TOKENS..(head + 1) * PAGE_TOKENS;
        PageHead {
            keys: &page.keys[head * keys..(head + 1) * keys],
            values: &page.values[head * values..(head + 1) * values],
            key_scales: &page.key_scales[slots.clone()],
            value_exps: &page.value_exps[slots.clone()],
            value_scales: &page.value_scales[slots.clone()],
            key_exps: &page.key_exps[slots],
        }
    }

    /// Checks that all pages of `runs`, which have been checked themselves, have been written.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`], naming the run and the page.
    pub(crate) fn check_written(
        &self,
        layer: usize,
        runs: &[PagedRun<'_>],
    ) -> Result<(), KernelError> {
        check_written(runs, |page| self.pages[layer * self.count + page].is_none())
    }

    /// Keys and values of a sequence up to the end of a run, in one piece.
    pub(crate) fn gathered(&self, layer: usize, run: &PagedRun<'_>) -> CodedKv {
        let Sizes { kv_heads, head_dim } = self.sizes;
        let rows = run.end() * kv_heads;
        let empty = || {
            (
                Vec::with_capacity(rows * head_dim),
                Vec::with_capacity(rows),
            )
        };
        let ((mut k, mut k_exp), (mut v, mut v_exp)) = (empty(), empty());
        for position in 0..run.end() {
            let (page, slot) = run.place(position);
            for head in 0..kv_heads {
                let page = self.head(layer, page, head);
                k.extend((0..head_dim).map(|d| page.keys[key_at(d, slot)]));
                v.extend((0..head_dim).map(|d| page.values[value_at(self.sizes, d, slot)]));
                k_exp.push(page.key_exps[slot]);
                v_exp.push(page.value_exps[slot]);
            }
        }
        let coded = |q: Vec<i16>, exp: Vec<i32>| Coded {
            rows,
            cols: head_dim,
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

/// Where a feature of the key of a slot stands.
fn key_at(feature: usize, slot: usize) -> usize {
    (feature / 2 * PAGE_TOKENS + slot) * 2 + feature % 2
}

/// Where a feature of the value of a slot stands.
fn value_at(sizes: Sizes, feature: usize, slot: usize) -> usize {
    (slot / 2 * sizes.width() + feature) * 2 + slot % 2
}

impl Page {
    fn new(sizes: Sizes) -> Self {
        let slots = sizes.kv_heads * PAGE_TOKENS;
        Self {
            keys: vec![0; sizes.kv_heads * sizes.keys()],
            values: vec![0; sizes.kv_heads * sizes.values()],
            key_scales: vec![0.0; slots],
            key_exps: vec![0; slots],
            value_exps: vec![0; slots],
            value_scales: vec![0.0; slots],
        }
    }

    fn put_key(&mut self, sizes: Sizes, (head, slot): (usize, usize), codes: &[i16], exp: i32) {
        let keys = &mut self.keys[head * sizes.keys()..];
        for (feature, &code) in codes.iter().enumerate() {
            keys[key_at(feature, slot)] = code;
        }
        let at = head * PAGE_TOKENS + slot;
        self.key_exps[at] = exp;
        self.key_scales[at] = pow2_f64(exp);
    }

    fn put_value(&mut self, sizes: Sizes, (head, slot): (usize, usize), codes: &[i16], exp: i32) {
        let values = &mut self.values[head * sizes.values()..];
        for (feature, &code) in codes.iter().enumerate() {
            values[value_at(sizes, feature, slot)] = code;
        }
        let at = head * PAGE_TOKENS + slot;
        self.value_exps[at] = exp;
        let is_plain = exp == EMPTY || (-126..=127).contains(&exp);
        self.value_scales[at] = if is_plain {
            pow2_f64(exp) as f32
        } else {
            f32::NAN
        };
    }
}
