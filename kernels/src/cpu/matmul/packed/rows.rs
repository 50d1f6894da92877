//! A few rows of A as they meet vectors of decoded codes.

use std::arch::x86_64::*;

use super::super::lines::{CacheLine, grow};
use crate::coded::Operand;
use crate::math::pow2_f64;

/// Numbers in a vector of codes.
pub(super) const RUN: usize = 32;

/// Where a vector of 32 codes has the numbers of its run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneOrder {
    /// As they follow each other.
    Natural,
    /// Number i beside number i + 16.
    Halves,
}

impl LaneOrder {
    /// The numbers as they follow each other.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn natural(self, codes: __m512i) -> __m512i {
        match self {
            Self::Natural => codes,
            Self::Halves => {
                // SAFETY: 32 words are a vector.
                let from = unsafe { _mm512_loadu_si512(APART.as_ptr().cast()) };
                _mm512_permutexvar_epi16(from, codes)
            }
        }
    }
}

/// Word i from word 2i, word i + 16 from word 2i + 1.
const APART: [i16; RUN] = {
    let mut from = [0; RUN];
    let mut i = 0;
    while i < RUN / 2 {
        from[i] = 2 * i as i16;
        from[i + RUN / 2] = 2 * i as i16 + 1;
        i += 1;
    }
    from
};

/// Word 2i from word i, word 2i + 1 from word i + 16.
const BESIDE: [i16; RUN] = {
    let mut from = [0; RUN];
    let mut i = 0;
    while i < RUN / 2 {
        from[2 * i] = i as i16;
        from[2 * i + 1] = (i + RUN / 2) as i16;
        i += 1;
    }
    from
};

/// Rows of A, cut into two digits: `q = 256 high + low`, `|high| <= 127`, `|low| <= 128`. For each
/// run of 32 there is a line of low digits and one of high digits of each row, side by side.
///
/// With digits of A alone, a product takes two instructions for 32 codes, and none to cut the codes
/// of the other side; and the sums of either digit are exact in 32 bits over [`DEPTH`].
pub(super) struct DigitRows<'a> {
    lines: &'a [CacheLine],
    /// How many rows.
    pub(super) count: usize,
    /// `2^exp` of each.
    pub(super) scales: Vec<f64>,
}

/// Depth over which sums of products with a digit are exact: a lane takes two products, of at most
/// `128 * 32,639`, of each run, and 256 of these pairs stay below 2^31.
pub(super) const DEPTH: usize = 256 * RUN;

impl<'a> DigitRows<'a> {
    /// Rows `[first, first + count)` of A.
    ///
    /// # Safety
    /// The machine has AVX-512; the rows stay within the codes, the depth's stride being 1.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn new(
        a: &Operand<'_>,
        first: usize,
        count: usize,
        order: LaneOrder,
        buffer: &'a mut Vec<CacheLine>,
    ) -> Self {
        let runs = a.depth.div_ceil(RUN);
        let lines = grow(buffer, 2 * count * runs, CacheLine::ZERO);
        for row in 0..count {
            let start = (first + row) * a.row_stride;
            let codes = &a.q[start..start + a.depth];
            for (run, codes) in codes.chunks(RUN).enumerate() {
                let mut whole = [0; RUN];
                whole[..codes.len()].copy_from_slice(codes);
                let at = 2 * (run * count + row);
                let (low, high) = digits(&whole, order);
                lines[at].store(low);
                lines[at + 1].store(high);
            }
        }
        let scale = |row| a.exp.get(first + row).map_or(1.0, |&e| pow2_f64(e));
        Self {
            lines,
            count,
            scales: (0..count).map(scale).collect(),
        }
    }

    /// The lines of a run and those after it.
    pub(super) fn lines_of(&self, run: usize) -> *const CacheLine {
        self.lines.as_ptr().wrapping_add(2 * run * self.count)
    }
}

/// The low and the high digits of a run.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn digits(codes: &[i16; RUN], order: LaneOrder) -> (__m512i, __m512i) {
    // SAFETY: 32 codes are a vector.
    let mut codes = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
    if order == LaneOrder::Halves {
        // SAFETY: as above.
        let from = unsafe { _mm512_loadu_si512(BESIDE.as_ptr().cast()) };
        codes = _mm512_permutexvar_epi16(from, codes);
    }
    let low = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(codes));
    let high = _mm512_srai_epi16::<8>(_mm512_add_epi16(codes, _mm512_set1_epi16(128)));
    (low, high)
}
