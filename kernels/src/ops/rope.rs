//! Rotary position embedding, in place.

use crate::tables::RopeTable;
use crate::{Device, Tensor, cpu, reference};

impl Device {
    /// Rotates every head of x `[tokens, heads * head_dim]` to its token's position; `inverse`
    /// turns back, which is the backward pass.
    pub fn rope(&self, x: &mut Tensor, table: &RopeTable, positions: &[u32], inverse: bool) {
        let (rows, width) = x.rows_cols();
        assert_eq!(
            (rows, width % (2 * table.half)),
            (positions.len(), 0),
            "rope: shapes"
        );
        match self {
            Self::Reference => {
                reference::rope::rotate(x.data_mut(), width, table, positions, inverse);
            }
            Self::Cpu(cpu) => {
                cpu::rope::rotate(cpu, x.data_mut(), width, table, positions, inverse);
            }
        }
    }
}
