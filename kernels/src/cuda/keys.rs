//! Keys and values that grow, in the memory of a GPU.

use super::grids::any_grid;
use super::page_codes::{PageCodes, append_kernel};
use super::{Cuda, MemoryPurpose, Result, Slice, arguments};
use crate::coded::Precision;
use crate::reference::attention::BLOCK;
use crate::reference::attention::{AttentionShape, CodedKv};

/// The tokens of a page: a block of keys.
const PAGE: usize = BLOCK;

/// Keys and values of one sequence in one layer, from position 0, in pages of 128 tokens. A clone
/// shares the pages until one of the two writes to them.
#[derive(Clone, Debug)]
pub struct GpuKeys {
    cuda: Cuda,
    kv_heads: usize,
    head_dim: usize,
    precision: Precision,
    tokens: usize,
    pages: Vec<Page>,
    /// Two addresses per page, of its codes and of its exponents: here and on the GPU.
    addresses: Vec<u64>,
    table: Slice<u64>,
}

#[derive(Clone, Debug)]
struct Page {
    /// Keys, then values: `[2, PAGE, kv_heads, head_dim]`.
    codes: PageCodes,
    /// `[2, PAGE, kv_heads]`.
    exps: Slice<i32>,
}

impl GpuKeys {
    /// Keys and values of no tokens.
    pub(crate) fn new(cuda: &Cuda, shape: &AttentionShape, precision: Precision) -> Result<Self> {
        Ok(Self {
            cuda: cuda.clone(),
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            precision,
            tokens: 0,
            pages: Vec::new(),
            addresses: Vec::new(),
            table: cuda.alloc(0)?,
        })
    }

    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Precision of its codes.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Two addresses per page, as kernels take them.
    pub(crate) fn table(&self) -> &Slice<u64> {
        &self.table
    }

    /// Puts the keys and values of new tokens after those that are there.
    ///
    /// # Errors
    /// Where the GPU is out of memory or lost: the tokens before are all there, the new ones are
    /// not.
    ///
    /// # Panics
    /// Where their width or precision is another one.
    pub(crate) fn append(&mut self, new: &CodedKv) -> Result<()> {
        for coded in [&new.k, &new.v] {
            assert_eq!(
                (coded.cols, coded.precision, coded.rows),
                (self.head_dim, self.precision, new.k.rows),
                "append: rows"
            );
        }
        let tokens = new.k.rows / self.kv_heads;
        if tokens == 0 {
            return Ok(());
        }
        let _account = self.cuda.account(MemoryPurpose::KeyValues);
        self.reserve(tokens)?;
        let cuda = &self.cuda;
        let kernel = append_kernel(self.precision);
        let (k_codes, k_exps) = (new.k.q.on(cuda)?, new.k.exp.on(cuda)?);
        let (v_codes, v_exps) = (new.v.q.on(cuda)?, new.v.exp.on(cuda)?);
        let arguments = arguments![
            &self.table,
            &k_codes,
            &k_exps,
            &v_codes,
            &v_exps,
            self.kv_heads as u32,
            self.head_dim as u32,
            self.tokens as u32,
            tokens as u32,
        ];
        let elements = new.k.rows * self.head_dim;
        cuda.launch(kernel, any_grid(elements), arguments)?;
        self.tokens += tokens;
        Ok(())
    }

    /// Makes room for the next `tokens` tokens, in pages that no clone shares.
    /// Where that fails nothing has changed.
    fn reserve(&mut self, tokens: usize) -> Result<()> {
        let (first, end) = (self.tokens / PAGE, (self.tokens + tokens).div_ceil(PAGE));
        let mut pages = Vec::with_capacity(end - first);
        for page in self.pages.iter().skip(first) {
            pages.push(page.own(&self.cuda)?);
        }
        let rows = 2 * PAGE * self.kv_heads;
        while first + pages.len() < end {
            pages.push(Page {
                codes: PageCodes::alloc(&self.cuda, self.precision, rows * self.head_dim)?,
                exps: self.cuda.alloc(rows)?,
            });
        }
        let kept = &self.pages[..first];
        let addresses: Vec<u64> = kept
            .iter()
            .chain(&pages)
            .flat_map(Page::addresses)
            .collect();
        if addresses.iter().ne(&self.addresses) {
            self.table = self.cuda.upload(&addresses)?;
            self.addresses = addresses;
        }
        self.pages.truncate(first);
        self.pages.append(&mut pages);
        Ok(())
    }
}

impl Page {
    /// The page itself, or a copy of one that a clone shares.
    fn own(&self, cuda: &Cuda) -> Result<Self> {
        if !self.codes.is_shared() && !self.exps.is_shared() {
            return Ok(self.clone());
        }
        let own = Self {
            codes: self.codes.copied(cuda)?,
            exps: cuda.alloc(self.exps.len())?,
        };
        cuda.copy(&self.exps, &own.exps)?;
        Ok(own)
    }

    fn addresses(&self) -> [u64; 2] {
        [self.codes.address_of(0), self.exps.address().0]
    }
}
