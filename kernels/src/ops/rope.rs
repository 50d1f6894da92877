//! Rotary position embedding, in place.

use crate::tables::RopeTable;
use crate::{Device, Ids, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// Rotates every head of x `[tokens, heads * head_dim]` to its token's position, as far as the
    /// table goes; the other elements of a head stay. `inverse` turns back, which is the backward
    /// pass (an attention factor multiplies in both directions).
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn rope(
        &self,
        x: &mut Tensor,
        table: &RopeTable,
        positions: &Ids,
        inverse: bool,
    ) -> Result<(), KernelError> {
        let (rows, width) = x.rows_cols();
        assert_eq!(
            (rows, width % table.head_dim),
            (positions.len(), 0),
            "rope: shapes"
        );
        assert!(2 * table.half <= table.head_dim, "rope: pairs of a head");
        if let Self::Cuda(gpu) = self {
            let (cos, sin) = (table.cos.on(gpu)?, table.sin.on(gpu)?);
            let positions = positions.on(gpu)?;
            let x = x.unique_on(gpu)?;
            let turn = cuda::rope::Rotation {
                width,
                head_dim: table.head_dim,
                half: table.half,
                pairs: table.pairs,
                inverse,
            };
            return cuda::rope::rotate(gpu, x, &turn, (&cos, &sin), &positions);
        }
        let positions = positions.0.values()?;
        let x = x.values_mut()?;
        match self {
            Self::Cpu(cpu) => cpu::rope::rotate(cpu, x, width, table, &positions, inverse),
            _ => reference::rope::rotate(x, width, table, &positions, inverse),
        }
        Ok(())
    }

    /// The table, where the device reads it.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn place_rope(&self, table: RopeTable) -> Result<RopeTable, KernelError> {
        Ok(RopeTable {
            cos: self.place_buffer(table.cos)?,
            sin: self.place_buffer(table.sin)?,
            ..table
        })
    }
}
