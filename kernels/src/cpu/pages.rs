//! Pages of keys and values in the memory of the process.

mod layout;

use crate::KernelError;
use crate::coded::{Coded, Precision};
use crate::math::pow2_f64;
use crate::reference::attention::{AttentionShape, CodedKv};
use crate::reference::code::EMPTY;
use crate::reference::pages::{PAGE_TOKENS, PagedRun, check_written};

use layout::PageCodes;
pub(crate) use layout::{CODE_ZERO, HeadCodes, LANES, Sizes};

/// Pages of some layers. A page is allocated when it is first written.
#[derive(Clone, Debug)]
pub struct HostPages {
    sizes: Sizes,
    precision: Precision,
    /// `[layers, pages]`.
    pages: Vec<Option<Page>>,
    /// Pages of a layer.
    count: usize,
}

/// 128 tokens of one sequence in one layer, head by head, as products of single rows take them.
#[derive(Clone, Debug)]
struct Page {
    codes: PageCodes,
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
    pub(crate) codes: HeadCodes<'a>,
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
            sizes: Sizes::new(shape, precision),
            precision,
            pages: vec![None; layers * count],
            count,
        }
    }

    /// Bytes of a page in one layer.
    pub(crate) fn page_bytes(shape: &AttentionShape, precision: Precision) -> usize {
        let codes = Sizes::new(shape, precision).bytes();
        let exps = size_of::<f64>() + size_of::<f32>() + 2 * size_of::<i32>();
        shape.kv_heads * (codes + exps * PAGE_TOKENS)
    }

    /// Key heads of a token.
    pub(crate) fn kv_heads(&self) -> usize {
        self.sizes.kv_heads
    }

    /// Whether codes have 8 bits, and lie as bytes.
    pub(crate) fn are_bytes(&self) -> bool {
        self.precision == Precision::I8
    }

    /// Adds pages of each layer that have not been written. For pages of one layer, whose numbers
    /// go on.
    pub(crate) fn grow(&mut self, pages: usize) {
        assert_eq!(self.pages.len(), self.count, "grow: pages of one layer");
        self.count = self.count.max(pages);
        self.pages.resize(self.count, None);
    }

    /// Puts the rows of `new` into the pages of `runs`, which have been checked.
    ///
    /// # Panics
    /// Where width or precision are others.
    pub(crate) fn write(&mut self, layer: usize, new: &CodedKv, runs: &[PagedRun<'_>]) {
        let Sizes {
            kv_heads, head_dim, ..
        } = self.sizes;
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
        let slots = head * PAGE_TOKENS..(head + 1) * PAGE_TOKENS;
        PageHead {
            codes: page.codes.head(self.sizes, head),
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
        let Sizes {
            kv_heads, head_dim, ..
        } = self.sizes;
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
                k.extend((0..head_dim).map(|d| page.codes.key(self.sizes, d, slot)));
                v.extend((0..head_dim).map(|d| page.codes.value(self.sizes, d, slot)));
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

impl Page {
    fn new(sizes: Sizes) -> Self {
        let slots = sizes.kv_heads * PAGE_TOKENS;
        Self {
            codes: PageCodes::new(sizes),
            key_scales: vec![0.0; slots],
            key_exps: vec![0; slots],
            value_exps: vec![0; slots],
            value_scales: vec![0.0; slots],
        }
    }

    fn put_key(&mut self, sizes: Sizes, (head, slot): (usize, usize), codes: &[i16], exp: i32) {
        self.codes.put_key(sizes, (head, slot), codes);
        let at = head * PAGE_TOKENS + slot;
        self.key_exps[at] = exp;
        self.key_scales[at] = pow2_f64(exp);
    }

    fn put_value(&mut self, sizes: Sizes, (head, slot): (usize, usize), codes: &[i16], exp: i32) {
        self.codes.put_value(sizes, (head, slot), codes);
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
