//! A checkpoint that is quantised as it is read: what `load_in_4bit` and `load_in_8bit` mean.
//!
//! The model is then the one with the quantised numbers, as if they had been stored so: addresses,
//! losses and adapters are of these. The matrices of the layers are quantised, but not the router
//! of experts, nor embedding and head, as bitsandbytes does it.

use std::collections::BTreeSet;
use std::sync::Arc;

use concord_kernels::Tensor;
use concord_kernels::cpu::code::quantize::quantize;
use concord_kernels::isa::Isa;
use concord_kernels::packed::{QuantFormat, TooLarge};

use super::quantizing::Quantizing;
use super::{BlockMatrix, ModelFolder, TakeRows};
use crate::error::ModelError;

/// Takes rows as blocks, and as the numbers that these stand for, with the number of all rows.
type TakeBlocks<'a> = dyn FnMut(usize, &[u8], Tensor) -> Result<(), ModelError> + 'a;

impl ModelFolder {
    /// The model whose matrices of the layers are quantised to `format`, row by row, as they are
    /// read. Nothing is read now.
    ///
    /// # Errors
    /// [`ModelError::CannotQuantize`] naming a matrix that is packed already, or whose rows are no
    /// whole blocks.
    pub fn quantized_to(mut self, format: QuantFormat) -> Result<Self, ModelError> {
        let blocks = format.blocks();
        let mut names = BTreeSet::new();
        if let Some(tensor) = self.config.fused_experts(0) {
            return Err(ModelError::CannotQuantize {
                path: self.place(&tensor),
                tensor,
                format: blocks.name(),
                reason: "the experts of a layer are one tensor, which is not quantised".to_string(),
            });
        }
        for layer in 0..self.config.layers {
            for matrix in self.config.layer_matrices(layer) {
                let name = format!("{}.weight", matrix.module);
                let refuse = |reason: String| ModelError::CannotQuantize {
                    path: self.place(&name),
                    tensor: name.clone(),
                    format: blocks.name(),
                    reason,
                };
                if self.is_packed(&name) {
                    return Err(refuse("its numbers are packed already".to_string()));
                }
                let cols = matrix.shape[1];
                if blocks.row_bytes(cols).is_none() {
                    return Err(refuse(format!(
                        "it has rows of {cols} numbers, and {} of them share a scale",
                        blocks.elements()
                    )));
                }
                names.insert(name);
            }
        }
        self.load_in = Some(Quantizing { format, names });
        Ok(self)
    }

    /// What the tensor `name` is quantised to as it is read.
    pub(super) fn quantizes(&self, name: &str) -> Option<QuantFormat> {
        let load_in = self.load_in.as_ref()?;
        load_in.has(name).then_some(load_in.format)
    }

    /// The rows of a tensor, some at a time: `take` is given the number of all rows, the bytes of
    /// these as blocks, and the numbers that the blocks stand for.
    fn quantized_blocks(
        &self,
        name: &str,
        format: QuantFormat,
        take: &mut TakeBlocks<'_>,
    ) -> Result<(), ModelError> {
        let (blocks, isa) = (format.blocks(), Isa::best());
        let (mut bytes, mut start) = (Vec::new(), 0);
        self.stored_rows(name, &mut |total, mut rows| {
            let count = rows.len();
            bytes.resize(count / blocks.elements() * blocks.bytes(), 0);
            if let Err(error) = quantize(isa, format, rows.values_mut()?, &mut bytes) {
                let index = start + error.index;
                return Err(ModelError::CannotQuantize {
                    path: self.place(name),
                    tensor: name.to_string(),
                    format: blocks.name(),
                    reason: TooLarge { index, ..error }.to_string(),
                });
            }
            start += count;
            take(total, &bytes, rows)
        })
    }

    /// As [`ModelFolder::load_rows`], of a tensor that is quantised.
    pub(super) fn quantized_rows(
        &self,
        name: &str,
        format: QuantFormat,
        take: &mut TakeRows<'_>,
    ) -> Result<(), ModelError> {
        self.quantized_blocks(name, format, &mut |total, _, rows| take(total, rows))
    }

    /// As [`ModelFolder::load`], of a tensor that is quantised.
    pub(super) fn load_quantized(
        &self,
        name: &str,
        format: QuantFormat,
    ) -> Result<Tensor, ModelError> {
        let (mut all, mut shape) = (Vec::new(), [0; 2]);
        self.quantized_rows(name, format, &mut |total, rows| {
            shape = [total, rows.rows_cols().1];
            all.reserve_exact((total * shape[1]).saturating_sub(all.len()));
            all.extend_from_slice(rows.data());
            Ok(())
        })?;
        Ok(Tensor::new(&shape, all)?)
    }

    /// As [`ModelFolder::blocks`], of a matrix that is quantised: its only copy is the caller's.
    pub(super) fn quantized_matrix(
        &self,
        name: &str,
        format: QuantFormat,
    ) -> Result<BlockMatrix, ModelError> {
        let blocks = format.blocks();
        let (mut all, mut shape) = (Vec::new(), [0; 2]);
        self.quantized_blocks(name, format, &mut |total, bytes, rows| {
            shape = [total, rows.rows_cols().1];
            let whole = blocks.row_bytes(shape[1]).unwrap_or(0) * total;
            all.reserve_exact(whole.saturating_sub(all.len()));
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        let range = 0..all.len();
        Ok(BlockMatrix {
            format: blocks,
            rows: shape[0],
            cols: shape[1],
            owner: Arc::new(all),
            range,
        })
    }
}
