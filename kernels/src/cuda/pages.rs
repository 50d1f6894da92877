//! Pages of keys and values of many sequences, in the memory of a GPU.

use super::grids::any_grid;
use super::page_codes::{PageCodes, append_kernel};
use super::{Cuda, MemoryPurpose, Result, Slice, arguments};
use crate::coded::Precision;
use crate::reference::attention::{AttentionShape, CodedKv};
use crate::reference::pages::{PAGE_TOKENS, PagedRun};

/// Pages of some layers, all allocated at once.
#[derive(Debug)]
pub struct GpuPages {
    cuda: Cuda,
    kv_heads: usize,
    head_dim: usize,
    precision: Precision,
    layers: Vec<Layer>,
}

/// Pages as kernels know them.
#[derive(Debug)]
struct Layer {
    /// `[pages, 2, PAGE_TOKENS, kv_heads, head_dim]`: keys, then values.
    codes: PageCodes,
    /// `[pages, 2, PAGE_TOKENS, kv_heads]`.
    exps: Slice<i32>,
}

/// Two addresses per page, of its codes and of its exponents, of the pages of several runs.
pub(crate) struct Tables {
    all: Slice<u64>,
    /// Where each run begins, and how many addresses it has.
    parts: Vec<(usize, usize)>,
}

impl Tables {
    /// The addresses of a run.
    pub(crate) fn of(&self, run: usize) -> Slice<u64> {
        let (first, count) = self.parts[run];
        self.all.part(first, count)
    }
}

impl GpuPages {
    /// `pages` pages in each of `layers` layers.
    pub(crate) fn new(
        cuda: &Cuda,
        layers: usize,
        shape: &AttentionShape,
        precision: Precision,
        pages: u32,
    ) -> Result<Self> {
        let _account = cuda.account(MemoryPurpose::KeyValues);
        let rows = (pages as usize)
            .saturating_mul(2 * PAGE_TOKENS)
            .saturating_mul(shape.kv_heads);
        let layer = |_| {
            Ok(Layer {
                codes: PageCodes::zeros(cuda, precision, rows.saturating_mul(shape.head_dim))?,
                exps: cuda.zeros(rows)?,
            })
        };
        Ok(Self {
            cuda: cuda.clone(),
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            precision,
            layers: (0..layers).map(layer).collect::<Result<_>>()?,
        })
    }

    /// Key heads of a token.
    pub(crate) fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Precision of the codes.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Where the pages of `runs`, which have been checked, lie in a layer.
    pub(crate) fn tables(&self, layer: usize, runs: &[PagedRun<'_>]) -> Result<Tables> {
        let rows = 2 * PAGE_TOKENS * self.kv_heads;
        let Layer { codes, exps } = &self.layers[layer];
        let (mut all, mut parts) = (Vec::new(), Vec::with_capacity(runs.len()));
        for run in runs {
            let used = &run.pages[..run.end().div_ceil(PAGE_TOKENS)];
            parts.push((all.len(), 2 * used.len()));
            for &page in used {
                let row = page as usize * rows;
                all.push(codes.address_of(row * self.head_dim));
                all.push(exps.part(row, rows).address().0);
            }
        }
        Ok(Tables {
            all: self.cuda.upload(&all)?,
            parts,
        })
    }

    /// Puts the rows of `new` into the pages of `runs`, which have been checked.
    ///
    /// # Panics
    /// Where width or precision are others.
    pub(crate) fn write(
        &mut self,
        layer: usize,
        new: &CodedKv,
        runs: &[PagedRun<'_>],
    ) -> Result<()> {
        for coded in [&new.k, &new.v] {
            let width = (coded.cols, coded.precision);
            assert_eq!(width, (self.head_dim, self.precision), "write_pages: width");
        }
        let cuda = &self.cuda;
        let tables = self.tables(layer, runs)?;
        let (k_codes, k_exps) = (new.k.q.on(cuda)?, new.k.exp.on(cuda)?);
        let (v_codes, v_exps) = (new.v.q.on(cuda)?, new.v.exp.on(cuda)?);
        let kernel = append_kernel(self.precision);
        let mut row = 0;
        for (index, run) in runs.iter().enumerate() {
            let rows = run.count * self.kv_heads;
            let elements = rows * self.head_dim;
            let [k, v] = [&k_codes, &v_codes].map(|q| q.part(row * self.head_dim, elements));
            let [k_exp, v_exp] = [&k_exps, &v_exps].map(|exp| exp.part(row, rows));
            let table = tables.of(index);
            let arguments = arguments![
                &table,
                &k,
                &k_exp,
                &v,
                &v_exp,
                self.kv_heads as u32,
                self.head_dim as u32,
                run.first as u32,
                run.count as u32,
            ];
            cuda.launch(kernel, any_grid(elements), arguments)?;
            row += rows;
        }
        Ok(())
    }
}
