//! Reading ahead: the codes that the next panel of B is packed from come into the second cache
//! while this one is multiplied, so that packing does not wait for memory.

use super::micro::{Micro, PrefetchReads};
use super::plan::SumKind;
use crate::coded::Operand;

/// The codes of a panel, of which each tile of a block reads an equal part.
pub(super) struct Ahead {
    codes: *const i8,
    /// Bytes of the panel in one step of depth.
    bytes: usize,
    tiles: usize,
    step: usize,
}

impl Ahead {
    /// Whether the rows of an operand lie one after another, as reading ahead takes them.
    pub(super) fn is_possible(b: &Operand<'_>) -> bool {
        b.depth_stride == 1 && b.row_stride == b.depth
    }

    /// Reads nothing ahead: every read hits the first codes again.
    pub(super) fn nothing(b: &Operand<'_>) -> Self {
        Self {
            codes: b.q.as_ptr().cast(),
            bytes: 0,
            tiles: 1,
            step: 0,
        }
    }

    /// The panel of B that starts with a column, read by so many tiles at each block of depth.
    pub(super) fn new<M: Micro>(
        kind: SumKind,
        b: &Operand<'_>,
        column: usize,
        tiles: usize,
    ) -> Self {
        let reads = M::reads_ahead(kind);
        if column >= b.rows || reads == 0 || !Self::is_possible(b) {
            return Self::nothing(b);
        }
        let bytes = M::COLS * size_of::<i16>();
        Self {
            codes: b.q[column * b.row_stride..].as_ptr().cast(),
            bytes,
            tiles,
            step: (4 * bytes).div_ceil(reads * tiles),
        }
    }

    /// The part of a tile that has `depth` from `start` on.
    ///
    /// It may end past the codes of a last panel that is not whole: such reads do nothing.
    pub(super) fn of_tile(&self, start: usize, depth: usize, tile: usize) -> PrefetchReads {
        let before = self.bytes * start + self.bytes * depth * tile / self.tiles;
        PrefetchReads {
            at: self.codes.wrapping_add(before),
            step: self.step,
        }
    }
}
