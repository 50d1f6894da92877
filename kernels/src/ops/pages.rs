//! Keys and values of many sequences in pages of a pool, and attention over them.
//!
//! A page has 128 tokens of one sequence, which is a block of attention: no kernel gathers. The
//! caller decides which pages a sequence has; the same page numbers hold in every layer.

use super::attention::check_sinks;
use super::matmul::tensor;
use crate::coded::{Coded, Precision};
use crate::cpu::pages::HostPages;
use crate::cuda::pages::GpuPages;
use crate::reference::attention::{AttentionShape, CodedKv};
use crate::reference::pages::{PagedRun, PlainPages, check_runs};
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

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
    Reference(PlainPages),
    Cpu(HostPages),
    Cuda(GpuPages),
}

impl KvPages {
    /// Bytes that one page takes in `layers` layers. It is the size on the host, the largest of all
    /// devices.
    pub fn bytes_per_page(layers: usize, shape: &AttentionShape, precision: Precision) -> u64 {
        layers as u64 * HostPages::page_bytes(shape, precision) as u64
    }

    /// Pages of each layer: page numbers are below it.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Layers that have these pages.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Checks that `runs` have `tokens` new tokens in all, in pages that are there.
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

impl Device {
    /// Pages for `layers` layers. On the host a page takes no memory before it is first written.
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
            Self::Reference => Store::Reference(PlainPages::new(layers, shape, precision, pages)),
            Self::Cpu(_) => Store::Cpu(HostPages::new(layers, shape, precision, pages)),
            Self::Cuda(gpu) => Store::Cuda(GpuPages::new(gpu, layers, shape, precision, pages)?),
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
            Store::Reference(plain) => plain.kv_heads(),
            Store::Cpu(host) => host.kv_heads(),
            Store::Cuda(gpu) => gpu.kv_heads(),
        };
        assert_eq!(new.k.rows, new.v.rows, "write_pages: rows of keys, values");
        pages.check(layer, new.k.rows / kv_heads, runs)?;
        match &mut pages.store {
            Store::Reference(plain) => {
                plain.write(layer, &*new.on_host()?, runs);
                Ok(())
            }
            Store::Cpu(host) => {
                host.write(layer, &*new.on_host()?, runs);
                Ok(())
            }
            Store::Cuda(gpu) => gpu.write(layer, new, runs),
        }
    }

    /// Attention of the coded queries `[tokens * heads, head_dim]` of `runs`, one run after
    /// another, each token over all keys of its sequence up to its own: `[tokens, heads *
    /// head_dim]`. `sinks` as for [`Self::attention`].
    ///
    /// # Errors
    /// [`KernelError::DoesNotFit`] where runs and rows do not fit, or a page is read that was never
    /// written; [`KernelError::Cuda`] where a GPU fails.
    ///
    /// # Panics
    /// For a layer that `pages` lack, or where there is not one sink per head.
    pub fn attention_paged(
        &self,
        queries: &Coded,
        pages: &KvPages,
        layer: usize,
        runs: &[PagedRun<'_>],
        shape: &AttentionShape,
        sinks: Option<&Tensor>,
        precision: Precision,
    ) -> Result<Tensor, KernelError> {
        check_sinks(sinks, shape);
        let tokens = queries.rows / shape.heads;
        pages.check(layer, tokens, runs)?;
        if let (Self::Cuda(gpu), Store::Cuda(pages)) = (self, &pages.store) {
            return cuda::attention::paged(
                gpu, queries, pages, layer, runs, shape, sinks, precision,
            );
        }
        let sinks = sinks.map(Tensor::values).transpose()?;
        let sinks = sinks.as_deref();
        let out = match (self, &pages.store) {
            (Self::Reference, Store::Reference(plain)) => {
                plain.check_written(layer, runs)?;
                let queries = queries.on_host()?;
                reference::pages::forward(&queries, plain, layer, runs, shape, sinks, precision)
            }
            (Self::Cpu(cpu), Store::Cpu(host)) => {
                host.check_written(layer, runs)?;
                let queries = queries.on_host()?;
                cpu::attention::paged(cpu, &queries, host, layer, runs, shape, sinks, precision)
            }
            _ => {
                let reason = format!("pages of another device, read by {}", self.name());
                return Err(KernelError::DoesNotFit(reason));
            }
        };
        tensor(&[tokens, shape.heads * shape.head_dim], out)
    }
}
