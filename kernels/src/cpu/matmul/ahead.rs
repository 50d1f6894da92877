//! Reading ahead: what the next tiles need comes into the second cache while this one is
//! multiplied.
//!
//! Where B is packed panel by panel, these are the codes that the next panel is packed from. Where
//! it was packed beforehand, its panels may lie in the third cache or in memory, and the next block
//! of depth is read ahead: without that, the first tile of each block waits for every line.

use std::ops::Range;

use super::lines::CacheLine;
use super::micro::{Micro, PrefetchReads};
use super::plan::SumKind;
use super::strip::{Layout, at_depth};
use crate::coded::Operand;

/// What the tiles of a panel read ahead, each an equal part in each block.
pub(super) enum Ahead {
    /// The codes of a panel.
    Codes {
        codes: *const i8,
        /// Bytes of the panel in one step of depth.
        bytes: usize,
        tiles: usize,
        step: usize,
    },
    /// The blocks of packed panels that follow.
    Packed(NextBlock),
}

/// A place in a packed panel.
#[derive(Clone, Copy)]
pub(super) struct PackedBlock {
    /// Its words and its upper digits.
    parts: [*const i8; 2],
    /// Bytes of them in one step of depth.
    bytes: [usize; 2],
}

impl PackedBlock {
    /// What the panel at `panel` holds from a depth on, which starts a block.
    pub(super) fn new<M: Micro>(
        kind: SumKind,
        layout: Layout,
        panel: *const CacheLine,
        start: usize,
    ) -> Self {
        let panel = layout.parts(panel.cast_mut());
        let at = |depth: usize| at_depth::<M>(kind, panel, M::COLS, depth);
        let (here, after) = (at(start), at(start + kind.block()));
        let bytes = |from: *mut i32, to: *mut i32| (to.addr() - from.addr()) / kind.block();
        Self {
            parts: [
                here.words.cast_const().cast(),
                here.high.cast_const().cast(),
            ],
            bytes: [bytes(here.words, after.words), bytes(here.high, after.high)],
        }
    }
}

/// Reads the block that comes next.
pub(super) struct NextBlock {
    /// What [`Micro::reads_ahead`] gives.
    reads: usize,
    kind: SumKind,
    tiles: usize,
    /// The depth that is multiplied, and where it starts in the panel.
    part: Range<usize>,
    here: PackedBlock,
    /// What is multiplied afterwards.
    following: PackedBlock,
}

impl NextBlock {
    fn of_tile(&self, start: usize, depth: usize, tile: usize) -> PrefetchReads {
        let end = start + depth;
        let (block, start) = match end < self.part.end {
            true => (self.here, end - self.part.start),
            false => (self.following, 0),
        };
        // Words are twice as many as upper digits: two thirds of the tiles read them.
        let of_words = match self.kind {
            SumKind::Wide => (2 * self.tiles).div_ceil(3),
            SumKind::Mixed => self.tiles,
            SumKind::Byte => 0,
        };
        let (part, tile, tiles) = match tile < of_words {
            true => (0, tile, of_words),
            false => (1, tile - of_words, self.tiles - of_words),
        };
        let bytes = block.bytes[part] * self.kind.block();
        let before = block.bytes[part] * start + bytes * tile / tiles;
        let slots = self.reads * depth.div_ceil(4);
        PrefetchReads {
            at: block.parts[part].wrapping_add(before),
            step: bytes.div_ceil(tiles * slots.max(1)),
        }
    }
}

impl Ahead {
    /// Whether the rows of an operand lie one after another, as reading ahead takes them.
    pub(super) fn is_possible(b: &Operand<'_>) -> bool {
        b.depth_stride == 1 && b.row_stride == b.depth
    }

    /// Reads nothing ahead: every read hits the first codes again.
    pub(super) fn nothing(b: &Operand<'_>) -> Self {
        Self::Codes {
            codes: b.q.as_ptr().cast(),
            bytes: 0,
            tiles: 1,
            step: 0,
        }
    }

    /// The blocks of `part` of the depth, which starts at `here` in a packed panel, each read while
    /// the one before is multiplied; then what follows. `tiles` share the reads.
    pub(super) fn packed<M: Micro>(
        kind: SumKind,
        part: Range<usize>,
        (here, following): (PackedBlock, PackedBlock),
        tiles: usize,
    ) -> Self {
        Self::Packed(NextBlock {
            reads: M::reads_ahead(kind),
            kind,
            tiles,
            part,
            here,
            following,
        })
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
        Self::Codes {
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
        match *self {
            Self::Packed(ref next) => next.of_tile(start, depth, tile),
            Self::Codes {
                codes,
                bytes,
                tiles,
                step,
            } => PrefetchReads {
                at: codes.wrapping_add(bytes * start + bytes * depth * tile / tiles),
                step,
            },
        }
    }
}
