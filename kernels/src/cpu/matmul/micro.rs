//! What an instruction set does for the packed path: it packs panels, multiplies tiles, and writes
//! them.

use super::finish::TileFinish;
use super::plan::SumKind;
use crate::coded::{Operand, Precision};

/// Where a tile reads ahead, a line at each of its [`Micro::reads_ahead`].
#[derive(Clone, Copy)]
pub(super) struct PrefetchReads {
    pub(super) at: *const i8,
    /// Bytes from one read to the next; reads may meet a line twice.
    pub(super) step: usize,
}

/// Which side of the product a panel is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Its codes are broadcast.
    A,
    /// Its codes fill vectors.
    B,
}

/// Some rows of an operand, to be packed side by side: at each step of depth, one number per row.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub(super) operand: &'a Operand<'a>,
    pub(super) side: Side,
    pub(super) kind: SumKind,
    /// First row.
    pub(super) first: usize,
    /// Number of rows that are there.
    pub(super) rows: usize,
    /// Number of rows that the panel holds; the others are zeros.
    pub(super) width: usize,
}

/// Where the parts of a packed panel stand.
#[derive(Clone, Copy)]
pub(super) struct Packed {
    /// Codes: `[depth / 2][width]` pairs along the depth.
    pub(super) words: *mut i32,
    /// Upper digits, or the codes of [`SumKind::Byte`]: `[depth / HIGH_DEPTH][width]`.
    pub(super) high: *mut i32,
    /// What `high` sums start a block with: `[blocks][width]`.
    pub(super) sums: *mut i32,
}

/// One block of depth of one tile.
#[derive(Clone, Copy)]
pub(super) struct OutputTile {
    pub(super) a: Packed,
    pub(super) b: Packed,
    /// `low` then `high`, `[ROWS][COLS]` each.
    pub(super) state: *mut i32,
    pub(super) depth: usize,
    /// Whether sums start here and `state` holds nothing yet.
    pub(super) is_first: bool,
    /// What is prefetched during the work.
    pub(super) ahead: PrefetchReads,
}

/// An instruction set's tile.
pub(super) trait Micro {
    /// Rows of a tile at most.
    const ROWS: usize;
    /// Columns of a tile.
    const COLS: usize;
    /// Depth in one element of the `high` part.
    const HIGH_DEPTH: usize;

    /// The sums for two precisions.
    fn kind(a: Precision, b: Precision) -> SumKind;

    /// Lines that a tile reads ahead in 4 of depth.
    fn reads_ahead(kind: SumKind) -> usize;

    /// Packs a panel.
    ///
    /// # Safety
    /// The machine has the instruction set. The operand's strides stay within its codes. `packed`
    /// has room for the depth rounded up to [`DEPTH_UNIT`](super::plan::DEPTH_UNIT), and 64 bytes
    /// beyond each part.
    unsafe fn pack(panel: &Panel<'_>, packed: Packed);

    /// Adds one block of depth to the sums of a tile of `rows` by [`Self::COLS`], the first `cols`
    /// of which are needed.
    ///
    /// # Safety
    /// The machine has the instruction set. Panels were packed by [`Self::pack`] for the same kind,
    /// that of A `rows` wide, and reach `depth` further.
    unsafe fn multiply(kind: SumKind, rows: usize, cols: usize, tile: &OutputTile);

    /// Scales, rounds and writes a tile whose exponents are narrow
    /// (see [`super::finish::Scales::is_narrow`]).
    ///
    /// # Safety
    /// The machine has the instruction set; `state` holds a tile; no other reference to the outputs
    /// exists.
    unsafe fn finish(kind: SumKind, finish: &TileFinish<'_>);
}
