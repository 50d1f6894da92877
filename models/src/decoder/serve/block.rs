//! A decoder layer of a pass: what [`Block::forward`](crate::decoder::block::Block) computes, for
//! sequences that lie in pages.

use concord_kernels::coded::Coded;
use concord_kernels::ops::{KvPages, PagedRun};
use concord_kernels::{KernelError, Tensor};

use super::ServeContext;
use crate::config::Projection;
use crate::decoder::block::Block;
use crate::decoder::linear::{Linear, Lora};
use crate::decoder::stage::Stage;

impl Stage {
    /// x `[m, d]` to `[m, d]`, by a layer and its index in the stage.
    pub(super) fn serve_block(
        &self,
        shared: &ServeContext<'_>,
        (layer, block): (usize, &Block),
        pages: &mut KvPages,
        x: Tensor,
    ) -> Result<Tensor, KernelError> {
        let (device, p) = (shared.device, self.options.precisions.activations);
        let line = |linear: &Linear, projection: Projection, x: &Coded| {
            self.serve_linear(shared, layer, (linear, projection), x)
        };
        let (normed, _) = block.attention_norm.forward(device, &x)?;
        let input = device.code(&normed, block.q.weight.cols, p)?;
        let mut q = line(&block.q, Projection::Q, &input)?;
        let mut k = line(&block.k, Projection::K, &input)?;
        let v = line(&block.v, Projection::V, &input)?;
        if let Some((q_norm, k_norm)) = &block.qk_norm {
            q = q_norm.forward(device, &q)?.0;
            k = k_norm.forward(device, &k)?.0;
        }
        device.rope(&mut q, &self.rope, shared.positions, false)?;
        device.rope(&mut k, &self.rope, shared.positions, false)?;
        let mixed = self.serve_attention(shared, (layer, block), pages, [&q, &k, &v])?;
        let input = device.code(&mixed, block.o.weight.cols, p)?;
        let mut middle = line(&block.o, Projection::O, &input)?;
        device.add_assign(&mut middle, &x)?;

        let (normed, _) = block.mlp_norm.forward(device, &middle)?;
        let input = device.code(&normed, block.gate.weight.cols, p)?;
        let g = line(&block.gate, Projection::Gate, &input)?;
        let u = line(&block.up, Projection::Up, &input)?;
        let hidden = device.swiglu(&g, &u)?;
        let input = device.code(&hidden, block.down.weight.cols, p)?;
        let mut y = line(&block.down, Projection::Down, &input)?;
        device.add_assign(&mut y, &middle)?;
        Ok(y)
    }

    /// Attention of the new tokens, whose keys and values go into the pages.
    fn serve_attention(
        &self,
        shared: &ServeContext<'_>,
        (layer, block): (usize, &Block),
        pages: &mut KvPages,
        [q, k, v]: [&Tensor; 3],
    ) -> Result<Tensor, KernelError> {
        let (device, shape) = (shared.device, &block.shape);
        let p = self.options.precisions.activations;
        let runs: &[PagedRun<'_>] = shared.runs;
        let codes = device.attention_codes(q, k, v, shape, p)?;
        device.write_pages(pages, layer, &codes.kv, runs)?;
        device.attention_paged(&codes.queries, pages, layer, runs, shape, None, p)
    }

    /// y `[m, out]` from the codes of x `[m, in]`, with the low-rank updates of the stage and of
    /// the adapters of runs.
    fn serve_linear(
        &self,
        shared: &ServeContext<'_>,
        layer: usize,
        (linear, projection): (&Linear, Projection),
        x: &Coded,
    ) -> Result<Tensor, KernelError> {
        let device = shared.device;
        let mut y = device.matmul(x, &linear.weight)?;
        if let Some(bias) = &linear.bias {
            device.add_bias(&mut y, bias)?;
        }
        let mut add = |rows: std::ops::Range<usize>, x: &Coded, lora: &Lora| {
            let low = device.matmul(x, &lora.a)?;
            let p = self.options.precisions.activations;
            let low = device.code(&low, lora.a.rows, p)?;
            let update = device.matmul(&low, &lora.b)?;
            device.scaled_add_rows(&mut y, rows.start, lora.scale, &update)
        };
        if let Some(lora) = &linear.lora {
            add(0..x.rows, x, lora)?;
        }
        for (rows, adapter) in shared.adapted {
            if let Some(lora) = adapter.update(layer, projection) {
                add(rows.clone(), &x.part(rows.start, rows.len()), lora)?;
            }
        }
        Ok(y)
    }
}
