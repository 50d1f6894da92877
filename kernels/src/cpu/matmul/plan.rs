//! What the packed path sums, and the depth over which it is exact.
//!
//! A tile keeps two 32-bit sums for an output: `low`, the sum of products modulo 2^32, and `high`,
//! the sum divided by 2^16 and rounded down. After each block of depth `high` is corrected: it is
//! then within 2^31 / 2^16 of its true value, so `low - high * 2^16`, taken modulo 2^32, is exactly
//! what is missing, and its upper half is added to `high`. Both together are the exact sum while
//! `|sum| < 2^47`, which [`DEPTH`] guarantees.

use crate::coded::Precision;

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
    /// most `256 * 2 * 127 * 128 + 128 * 128 = 8,339,456`; 256 of them, and the `2^16` by which a
    /// corrected `high` may be off, stay below 2^31.
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
