//! The AVX-512 VNNI tile: up to 14 rows by 32 columns in 28 registers of sums.
//!
//! `vpdpwssd` adds 2 products of 16-bit codes a lane, `vpdpbusd` 4 products of 8-bit digits, both
//! modulo 2^32. The latter takes one side unsigned: A's digits are stored with 128 added, and the
//! sums of B's digits times -128 start the block.

#![expect(
    clippy::needless_range_loop,
    reason = "counted loops are unrolled, sums stay registers"
)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::avx512_pack;
use super::finish::{self, TileFinish};
use super::lines::CacheLine;
use super::micro::{Micro, OutputTile, Packed, Panel};
use super::plan::SumKind;
use crate::coded::Precision;

/// The instruction set, see [`crate::isa::Isa::Avx512`].
pub(super) struct Avx512;

const ROWS: usize = 14;
const COLS: usize = 32;
const LANES: usize = 16;
/// Lines that `words` reads ahead in 4 of depth; `bytes` reads one.
const WORDS_AHEAD: usize = 2;

impl Micro for Avx512 {
    const ROWS: usize = ROWS;
    const COLS: usize = COLS;
    const HIGH_DEPTH: usize = 4;

    fn kind(a: Precision, b: Precision) -> SumKind {
        SumKind::new(a, b)
    }

    fn reads_ahead(kind: SumKind) -> usize {
        match kind {
            SumKind::Wide => WORDS_AHEAD + 1,
            SumKind::Mixed => WORDS_AHEAD,
            SumKind::Byte => 1,
        }
    }

    unsafe fn pack(panel: &Panel<'_>, packed: Packed) {
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { avx512_pack::pack(panel, packed) }
    }

    unsafe fn multiply(kind: SumKind, rows: usize, cols: usize, tile: &OutputTile) {
        macro_rules! by_rows {
            ($($rows:literal)*) => {
                match (rows, cols > LANES) {
                    $(
                        // SAFETY: the caller's promises are those that are asked for.
                        ($rows, true) => unsafe { multiply::<$rows, 2>(kind, tile) },
                        // SAFETY: as above.
                        ($rows, false) => unsafe { multiply::<$rows, 1>(kind, tile) },
                    )*
                    _ => unreachable!("a tile of {rows} rows"),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }

    unsafe fn finish(kind: SumKind, finish: &TileFinish<'_>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn with_features(kind: SumKind, finish: &TileFinish<'_>) {
            // SAFETY: the caller's promises are those that are asked for.
            unsafe { finish::in_f32::<ROWS, COLS>(kind, finish) }
        }
        // SAFETY: as above.
        unsafe { with_features(kind, finish) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn multiply<const R: usize, const V: usize>(kind: SumKind, tile: &OutputTile) {
    // SAFETY: the caller's promises: panels of `R` rows and `COLS` columns reach `depth` further.
    unsafe {
        match kind {
            SumKind::Wide => {
                words::<R, V, false>(tile);
                bytes::<R, V, true>(tile);
            }
            SumKind::Mixed => words::<R, V, true>(tile),
            SumKind::Byte => bytes::<R, V, false>(tile),
        }
    }
}

/// Adds 16-bit products to `low`; corrects `high` if `IS_LAST`.
///
/// The sums stay in one function: passed between functions they would pass through memory.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn words<const R: usize, const V: usize, const IS_LAST: bool>(tile: &OutputTile) {
    let mut sums = [[_mm512_setzero_si512(); V]; R];
    // SAFETY: `state` holds `ROWS` by `COLS` sums a part; the panels reach `depth` further,
    // rounded up to whole quads.
    unsafe {
        if !tile.is_first {
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = _mm512_loadu_si512(lanes(tile, 0, r, v));
                }
            }
        }
        let (mut a, mut b) = (tile.a.words.cast_const(), tile.b.words.cast_const());
        let mut ahead = tile.ahead.at;
        for _ in 0..tile.depth.div_ceil(4) {
            for half in 0..WORDS_AHEAD {
                _mm_prefetch::<_MM_HINT_T1>(ahead);
                ahead = ahead.wrapping_add(tile.ahead.step);
                let mut columns = [_mm512_setzero_si512(); V];
                for v in 0..V {
                    columns[v] = _mm512_loadu_si512(b.add(half * COLS + v * LANES).cast());
                }
                for r in 0..R {
                    let row = _mm512_set1_epi32(*a.add(half * R + r));
                    for v in 0..V {
                        sums[r][v] = add_pairs(sums[r][v], row, columns[v]);
                    }
                }
            }
            (a, b) = (a.add(2 * R), b.add(2 * COLS));
        }
        for r in 0..R {
            for v in 0..V {
                _mm512_storeu_si512(lanes(tile, 0, r, v), sums[r][v]);
                if IS_LAST {
                    let at = lanes(tile, 1, r, v);
                    let zero = _mm512_setzero_si512();
                    let high = if tile.is_first {
                        zero
                    } else {
                        _mm512_loadu_si512(at)
                    };
                    _mm512_storeu_si512(at, carry(sums[r][v], high));
                }
            }
        }
    }
}

/// Adds 8-bit products: of upper digits to `high` if `IS_UPPER`, else of codes to `low`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn bytes<const R: usize, const V: usize, const IS_UPPER: bool>(tile: &OutputTile) {
    let part = usize::from(IS_UPPER);
    let mut sums = [[_mm512_setzero_si512(); V]; R];
    // SAFETY: as for `words`; B's `sums` have a row for this block.
    unsafe {
        for v in 0..V {
            let start = _mm512_loadu_si512(tile.b.sums.add(v * LANES).cast());
            for r in 0..R {
                let before = _mm512_loadu_si512(lanes(tile, part, r, v));
                sums[r][v] = if tile.is_first {
                    start
                } else {
                    _mm512_add_epi32(before, start)
                };
            }
        }
        let (mut a, mut b) = (tile.a.high.cast_const(), tile.b.high.cast_const());
        let steps = tile.depth.div_ceil(4);
        let words_before = if IS_UPPER { WORDS_AHEAD * steps } else { 0 };
        let mut ahead = tile.ahead.at.wrapping_add(words_before * tile.ahead.step);
        for _ in 0..steps {
            _mm_prefetch::<_MM_HINT_T1>(ahead);
            ahead = ahead.wrapping_add(tile.ahead.step);
            let mut columns = [_mm512_setzero_si512(); V];
            for v in 0..V {
                columns[v] = _mm512_loadu_si512(b.add(v * LANES).cast());
            }
            for r in 0..R {
                let row = _mm512_set1_epi32(*a.add(r));
                for v in 0..V {
                    sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], row, columns[v]);
                }
            }
            (a, b) = (a.add(R), b.add(COLS));
        }
        for r in 0..R {
            for v in 0..V {
                let sum = sums[r][v];
                let sum = if IS_UPPER {
                    carry(_mm512_loadu_si512(lanes(tile, 0, r, v)), sum)
                } else {
                    sum
                };
                _mm512_storeu_si512(lanes(tile, part, r, v), sum);
            }
        }
    }
}

/// Where 16 sums of part 0, `low`, or 1, `high`, stand.
#[inline(always)]
fn lanes(tile: &OutputTile, part: usize, row: usize, vector: usize) -> *mut __m512i {
    tile.state
        .wrapping_add((part * ROWS + row) * COLS + vector * LANES)
        .cast()
}

/// `vpdpwssd`. The intrinsic would be split into a product and an addition wherever two follow each
/// other, which the compiler takes to be quicker; here the chains of others fill the wait.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn add_pairs(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    let mut sum = sum;
    // SAFETY: an instruction on registers, of an instruction set that this function enables.
    unsafe {
        asm!("vpdpwssd {0}, {1}, {2}", inout(zmm_reg) sum, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// As [`add_pairs`], of a line in memory: one instruction, where a load of its own would be two.
///
/// # Safety
/// A line lies at `a`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn add_pairs_at(sum: __m512i, a: *const CacheLine, b: __m512i) -> __m512i {
    let mut sum = sum;
    // SAFETY: as above; it reads a line.
    unsafe {
        asm!("vpdpwssd {0}, {1}, zmmword ptr [{2}]", inout(zmm_reg) sum, in(zmm_reg) b,
            in(reg) a, options(pure, readonly, nostack, preserves_flags));
    }
    sum
}

/// Corrects `high`: see [`super::plan`].
#[inline]
#[target_feature(enable = "avx512f")]
fn carry(low: __m512i, high: __m512i) -> __m512i {
    let rest = _mm512_sub_epi32(low, _mm512_slli_epi32::<16>(high));
    _mm512_add_epi32(high, _mm512_srai_epi32::<16>(rest))
}
