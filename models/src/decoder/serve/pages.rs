//! A pass over sequences whose keys and values are in pages, each with its own low-rank update or
//! none.

use std::ops::Range;

use concord_kernels::coded::Coded;
use concord_kernels::ops::{AttentionShape, KvPages, PagedRun};
use concord_kernels::{KernelError, Tensor};

use super::StageAdapter;
use crate::decoder::linear::{Linear, LinearTape, Lora};
use crate::decoder::pass::{Attended, LayerPass, PassContext, PlaceOfTokens, SomeRows};

/// New tokens of several sequences, one run after another.
pub(super) struct PagesPass<'a> {
    pub(super) context: PassContext<'a>,
    /// The layer's index in the stage.
    pub(super) layer: usize,
    pub(super) pages: &'a mut KvPages,
    pub(super) runs: &'a [PagedRun<'a>],
    /// Ranges of rows, and the adapter of each.
    pub(super) adapted: &'a [(Range<usize>, &'a StageAdapter)],
}

impl LayerPass for PagesPass<'_> {
    fn context(&self) -> PassContext<'_> {
        self.context
    }

    /// Adds the low-rank updates of the stage and of the runs' adapters.
    fn linear(&self, linear: &Linear, x: &Coded) -> Result<(Tensor, LinearTape), KernelError> {
        self.multiplied(linear, x, &|first, count| first..first + count)
    }

    fn linear_of_rows(
        &self,
        linear: &Linear,
        x: &Coded,
        rows: &SomeRows<'_>,
    ) -> Result<(Tensor, LinearTape), KernelError> {
        self.multiplied(linear, x, rows.place)
    }

    /// Attention of the new tokens, whose keys and values are written to the pages.
    fn attend(
        &mut self,
        (shape, sinks): (&AttentionShape, Option<&Tensor>),
        [q, k, v]: [&Tensor; 3],
    ) -> Result<Attended, KernelError> {
        let PassContext {
            device,
            precision: p,
            key_values,
            ..
        } = self.context;
        let (layer, runs) = (self.layer, self.runs);
        let codes = device.attention_codes(q, k, v, shape, p, key_values)?;
        device.write_pages(self.pages, layer, &codes.kv, runs)?;
        let (queries, pages) = (&codes.queries, &*self.pages);
        let out = device.attention_paged(queries, pages, layer, runs, shape, sinks, p)?;
        Ok(Attended::Plain(out))
    }
}

impl PagesPass<'_> {
    /// The product with all updates; `place` maps tokens to rows.
    fn multiplied(
        &self,
        linear: &Linear,
        x: &Coded,
        place: &PlaceOfTokens<'_>,
    ) -> Result<(Tensor, LinearTape), KernelError> {
        let PassContext {
            device, precision, ..
        } = self.context;
        let (mut y, _) = linear.forward(device, x, precision, None)?;
        let mut add = |rows: Range<usize>, x: &Coded, lora: &Lora| {
            let low = device.matmul(x, &lora.a)?;
            let low = device.code(&low, lora.a.rows, precision)?;
            let update = device.matmul(&low, &lora.b)?;
            device.scaled_add_rows(&mut y, rows.start, lora.scale, &update)
        };
        for (rows, adapter) in self.adapted {
            let rows = place(rows.start, rows.len());
            if let (Some(lora), false) = (adapter.update(linear), rows.is_empty()) {
                add(rows.clone(), &x.part(rows.start, rows.len()), lora)?;
            }
        }
        Ok((y, LinearTape::default()))
    }
}
