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
/// run of 32 there is a line of low digits and one of high digits of each row, side by side. Runs
/// come in pairs, the rest filled with zeros.
///
/// The sums of either digit are exact in 32 bits over [`super::blocks::DEPTH`]: a lane takes two
/// products, of at most `128 * 32,639`, of each run, and 256 of these pairs stay below 2^31.
pub(super) struct DigitRows<'a> {
    lines: &'a [CacheLine],
    /// The first row of A that is here.
    pub(super) first: usize,
    /// How many rows.
    pub(super) count: usize,
    /// `2^exp` of each.
    pub(super) scales: Vec<f64>,
}

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
        let runs = a.depth.div_ceil(2 * RUN) * 2;
        let lines = grow(buffer, 2 * count * runs, CacheLine::ZERO);
        for row in 0..count {
            let codes = row_of(a, first + row);
            for run in 0..runs {
                let (low, high) = digits(run_of(codes, run, order));
                let at = 2 * (run * count + row);
                lines[at].store(low);
                lines[at + 1].store(high);
            }
        }
        Self {
            lines,
            first,
            count,
            scales: scales_of(a, first, count),
        }
    }

    /// The lines of a run and those after it.
    pub(super) fn lines_of(&self, run: usize) -> *const CacheLine {
        self.lines.as_ptr().wrapping_add(2 * run * self.count)
    }
}

/// Rows of A as they are, beside their high digits. For each pair of runs there are of each row two
/// lines of codes and one of digits, side by side, the rest filled with zeros.
pub(super) struct WordRows<'a> {
    lines: &'a [CacheLine],
    /// What the sums of high digits start with, a line for each row in each block of depth.
    starts: &'a [CacheLine],
    /// The first row of A that is here.
    pub(super) first: usize,
    /// How many rows.
    pub(super) count: usize,
    /// `2^exp` of each.
    pub(super) scales: Vec<f64>,
}

/// Depth over which both sums of a product are exact together: 256 products a lane, as
/// [`super::super::plan::SumKind::Wide`] allows.
pub(super) const BLOCK: usize = 4_096;

impl<'a> WordRows<'a> {
    /// Rows `[first, first + count)` of A.
    ///
    /// # Safety
    /// As [`DigitRows::new`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn new(
        a: &Operand<'_>,
        first: usize,
        count: usize,
        order: LaneOrder,
        buffer: &'a mut Vec<CacheLine>,
    ) -> Self {
        const STEPS: usize = BLOCK / (2 * RUN);
        let (steps, blocks) = (a.depth.div_ceil(2 * RUN), a.depth.div_ceil(BLOCK));
        let lines = grow(buffer, count * (3 * steps + blocks), CacheLine::ZERO);
        let (lines, starts) = lines.split_at_mut(count * 3 * steps);
        for row in 0..count {
            let codes = row_of(a, first + row);
            for block in 0..blocks {
                let mut sum = _mm512_setzero_si512();
                for step in block * STEPS..steps.min((block + 1) * STEPS) {
                    let pair = [0, 1].map(|i| run_of(codes, 2 * step + i, order));
                    let high = high_digits(pair);
                    let at = 3 * (step * count + row);
                    lines[at].store(pair[0]);
                    lines[at + 1].store(pair[1]);
                    lines[at + 2].store(high);
                    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), high);
                }
                // The digits of the other side have 128 added.
                let start = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(sum));
                starts[block * count + row].store(start);
            }
        }
        Self {
            lines,
            starts,
            first,
            count,
            scales: scales_of(a, first, count),
        }
    }

    /// The lines from a depth on, which is a multiple of 64.
    pub(super) fn lines_of(&self, depth: usize) -> *const CacheLine {
        let step = depth / (2 * RUN);
        self.lines.as_ptr().wrapping_add(3 * step * self.count)
    }

    /// What the sums of high digits of the rows start with, in a block.
    pub(super) fn starts_of(&self, block: usize) -> &[CacheLine] {
        &self.starts[block * self.count..][..self.count]
    }
}

/// The codes of a row.
fn row_of<'a>(a: &Operand<'a>, row: usize) -> &'a [i16] {
    &a.q[row * a.row_stride..][..a.depth]
}

/// `2^exp` of some rows.
fn scales_of(a: &Operand<'_>, first: usize, count: usize) -> Vec<f64> {
    let scale = |row| a.exp.get(row).map_or(1.0, |&e| pow2_f64(e));
    (first..first + count).map(scale).collect()
}

/// A run of codes in the order of a format, filled with zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn run_of(codes: &[i16], run: usize, order: LaneOrder) -> __m512i {
    let rest = codes.get(run * RUN..).unwrap_or_default();
    let mut whole = [0; RUN];
    let len = rest.len().min(RUN);
    whole[..len].copy_from_slice(&rest[..len]);
    // SAFETY: 32 words are a vector.
    let codes = unsafe { _mm512_loadu_si512(whole.as_ptr().cast()) };
    match order {
        LaneOrder::Natural => codes,
        LaneOrder::Halves => {
            // SAFETY: as above.
            let from = unsafe { _mm512_loadu_si512(BESIDE.as_ptr().cast()) };
            _mm512_permutexvar_epi16(from, codes)
        }
    }
}

/// The low and the high digits of a run.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn digits(codes: __m512i) -> (__m512i, __m512i) {
    let low = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(codes));
    let high = _mm512_srai_epi16::<8>(_mm512_add_epi16(codes, _mm512_set1_epi16(128)));
    (low, high)
}

/// The high digits of two runs, those of the first in the lower bytes of words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn high_digits([first, second]: [__m512i; 2]) -> __m512i {
    let half = _mm512_set1_epi16(128);
    let first = _mm512_srli_epi16::<8>(_mm512_add_epi16(first, half));
    let second = _mm512_add_epi16(second, half);
    // lower ? first : second
    _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi16(0xff), first, second)
}
