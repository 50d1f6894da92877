//! What the packed path computes: its sums, the depth over which they are exact, and its tiles.
//!
//! A tile keeps two 32-bit sums for an output: `low`, the sum of products modulo 2^32, and `high`,
//! the sum divided by 2^16 and rounded down. After each block of depth `high` is brought in order:
//! it then stands within 2^31 / 2^16 of the truth, so `low - high * 2^16`, taken modulo 2^32, is
//! what is missing, and a shift moves its upper half into `high`. Both together are the exact sum
//! while `|sum| < 2^47`, which [`DEPTH`] guarantees.

use super::ahead::PrefetchReads;
use super::finish::Scales;
use super::task::TaskOutput;
use crate::coded::{Operand, Precision};

/// Depth after which sums leave their 32-bit parts for 64 bits: `32,639^2 * 2^16 < 2^46`.
pub(super) const DEPTH: usize = 1 << 16;

/// Depth is packed in multiples of this, the rest filled with zeros.
pub(super) const DEPTH_UNIT: usize = 32;

/// Which instructions sum the products of two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SumKind {
    /// Both sides beyond 8 bits: `low` by 16-bit products, `high` by products of upper digits.
    ///
    /// `q = 256 h + l` with `|h| <= 127` and `|l| <= 128`, so a product misses `2^16 ha hb` by at
    /// most `256 * 2 * 127 * 128 + 128 * 128 = 8,339,456`; 256 of them, and the `2^16` that an
    /// ordered `high` may be off, stay below 2^31.
    Wide,
    /// One side of 8 bits: `low` alone, since 512 products of at most `127 * 32,639` and `2^16`
    /// stay below 2^31.
    Mixed,
    /// Both sides of 8 bits: `low` alone, and exact over [`DEPTH`].
    Byte,
}

impl SumKind {
    pub(super) fn new(a: Precision, b: Precision) -> Self {
        match (a, b) {
            (Precision::I8, Precision::I8) => Self::Byte,
            (Precision::I8, _) | (_, Precision::I8) => Self::Mixed,
            _ => Self::Wide,
        }
    }

    /// Depth of a block; for bytes, what fits the first cache.
    pub(super) const fn block(self) -> usize {
        match self {
            Self::Wide => 256,
            Self::Mixed => 512,
            Self::Byte => 1024,
        }
    }
}

/// Which side of the product a panel is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Its codes are broadcast.
    A,
    /// Its codes fill vectors.
    B,
}

/// Some rows of an operand, to be packed side by side: at each step of depth, one number a row.
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

/// The part of a tile's sums that is written, and where.
#[derive(Clone, Copy)]
pub(super) struct TileFinish<'a> {
    pub(super) output: &'a TaskOutput<'a>,
    pub(super) state: *const i32,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) col: usize,
    pub(super) cols: usize,
    pub(super) a_exp: &'a [i32],
    pub(super) b_exp: &'a [i32],
    pub(super) a_scales: &'a Scales,
    pub(super) b_scales: &'a Scales,
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
    /// has room for the depth rounded up to [`DEPTH_UNIT`], and 64 bytes beyond each part.
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
