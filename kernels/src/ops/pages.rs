//! Keys and values of many sequences in pages of a pool, and attention over them.
//!
//! A page has 128 tokens of one sequence, which is a block of attention: no kernel gathers. Which
//! pages a sequence has is the caller's affair; the same page numbers hold in every layer.

use super::matmul::tensor;
use super::{AttentionShape, CodedKv};
use crate::coded::{Coded, Precision};
use crate::cpu::pages::HostPages;
use crate::cuda::kv_pages::GpuPages;
use crate::reference::attention::BLOCK;
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

/// Tokens of a page.
pub const PAGE_TOKENS: usize = BLOCK;

/// Coded keys and values of the layers of a stage, in pages.
#[derive(Debug)]
pub struct KvPages {
    store: Store,
    layers: usize,
    pages: u32,
}

/// Where pages lie.
#[derive(Debug)]
enum Store {
    Host(HostPages),
    Cuda(GpuPages),
}

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

impl KvPages {
    /// Bytes that one page takes in `layers` layers: on the host, where it takes the most.
    pub fn bytes_per_page(layers: usize, shape: &AttentionShape, _precision: Precision) -> u64 {
        layers as u64 * HostPages::page_bytes(shape) as u64
    }

    /// Number of pages.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// That `runs` have `tokens` new tokens in all, in pages that are there.
    fn check(&self, layer: usize, tokens: usize, runs: &[PagedRun<'_>]) -> Result<(), KernelError> {
        assert!(layer < self.layers, "layer {layer} of {}", self.layers);
        check_runs(runs, self.pages)?;
        let asked: usize = runs.iter().map(|run| run.count).sum();
        if asked == tokens {
            return Ok(());
        }
        Err(KernelError::DoesNotFit(format!(
            "the runs have {asked} tokens, the rows are of {tokens}"
        )))
    }
}

/// That every run has tokens, and pages for them out of `pages`.
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

impl Device {
    /// Pages for `layers` layers. On the host a page takes memory once it is written.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory.
    pub fn kv_pages(
        &self,
        layers: usize,
        shape: &AttentionShape,
        precision: Precision,
        pages: u32,
    ) -> Result<KvPages, KernelError> {
        let store = match self {
            Self::Cuda(gpu) => Store::Cuda(GpuPages::new(gpu, layers, shape, precision, pages)?),
            _ => Store::Host(HostPages::new(layers, shape, precision, pages)),
        };
        Ok(KvPages {
            store,
            layers,
            pages,
        })
    }

    /// Puts the keys and values of the tokens of `runs`, one run after another, into their pages.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] where runs and rows do not fit; [`KernelError::Cuda`] where a
    /// GPU fails.
    ///
    /// # Panics
    /// For a layer that `pages` lack, or rows of another width or precision.
    pub fn write_pages(
        &self,
        pages: &mut KvPages,
        layer: usize,
        new: &CodedKv,
        runs: &[PagedRun<'_>],
    ) -> Result<(), KernelError> {
        let kv_heads = match &pages.store {
            Store::Host(host) => host.kv_heads(),
            Store::Cuda(gpu) => gpu.kv_heads(),
        };
        assert_eq!(new.k.rows, new.v.rows, "write_pages: rows of keys, values");
        pages.check(layer, new.k.rows / kv_heads, runs)?;
        match &mut pages.store {
            Store::Host(host) => {
                host.write(layer, &*new.on_host()?, runs);
                Ok(())
            }
            Store::Cuda(gpu) => gpu.write(layer, new, runs),
        }
    }

    /// Attention of the coded queries `[tokens * heads, head_dim]` of `runs`, one run after
    /// another, each token over all keys of its sequence up to its own: `[tokens, heads *
    /// head_dim]`.
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] where runs and rows do not fit, or a page is read that was never
    /// written; [`KernelError::Cuda`] where a GPU fails.
    ///
    /// # Panics
    /// For a layer that `pages` lack.
    pub fn attention_paged(
        &self,
        queries: &Coded,
        pages: &KvPages,
        layer: usize,
        runs: &[PagedRun<'_>],
        shape: &AttentionShape,
        precision: Precision,
    ) -> Result<Tensor, KernelError> {
        let tokens = queries.rows / shape.heads;
        pages.check(layer, tokens, runs)?;
        let host = match (self, &pages.store) {
            (Self::Cuda(gpu), Store::Cuda(pages)) => {
                return cuda::attention::paged(gpu, queries, pages, layer, runs, shape, precision);
            }
            (_, Store::Host(host)) => host,
            (_, Store::Cuda(_)) => {
                let reason = "pages of a GPU, read by another device".to_string();
                return Err(KernelError::DoesNotFit(reason));
            }
        };
        host.check_written(layer, runs)?;
        let queries = queries.on_host()?;
        let out = match self {
            Self::Cpu(cpu) => {
                cpu::attention::paged(cpu, &queries, host, layer, runs, shape, precision)
            }
            _ => reference_paged(&queries, host, layer, runs, shape, precision),
        };
        self.place(tensor(&[tokens, shape.heads * shape.head_dim], out)?)
    }
}

/// By the reference, run by run, over keys and values in one piece.
fn reference_paged(
    queries: &Coded,
    pages: &HostPages,
    layer: usize,
    runs: &[PagedRun<'_>],
    shape: &AttentionShape,
    precision: Precision,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(queries.rows * shape.head_dim);
    let mut row = 0;
    for run in runs {
        let rows = run.count * shape.heads;
        let queries = queries.part(row, rows);
        let kv = pages.gathered(layer, run);
        let one = reference::attention::forward(&queries, &kv, run.first, shape, precision);
        out.extend(one.out);
        row += rows;
    }
    out
}
