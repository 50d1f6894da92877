//! The AVX2 tile: up to 6 rows by 16 columns in 12 registers of sums.
//!
//! `vpmaddwd` multiplies 16-bit numbers and adds 2 neighbours, without loss: `2 * 32,639^2 < 2^31`;
//! `vpaddd` adds modulo 2^32. Upper digits are packed as 16-bit numbers, since `vpmaddubsw`
//! saturates on 8-bit digits.

#![expect(
    clippy::needless_range_loop,
    reason = "counted loops are unrolled, sums stay registers"
)]

use std::arch::x86_64::*;

use super::finish::{self, TileFinish};
use super::micro::{Micro, OutputTile, Packed, Panel};
use super::plan::{DEPTH_UNIT, SumKind};
use crate::coded::Precision;

/// The instruction set, see [`crate::isa::Isa::Avx2`].
pub(super) struct Avx2;

const ROWS: usize = 6;
const COLS: usize = 16;
const LANES: usize = 8;

impl Micro for Avx2 {
    const ROWS: usize = ROWS;
    const COLS: usize = COLS;
    const HIGH_DEPTH: usize = 2;

    fn kind(a: Precision, b: Precision) -> SumKind {
        match SumKind::new(a, b) {
            SumKind::Wide => SumKind::Wide,
            SumKind::Mixed | SumKind::Byte => SumKind::Mixed,
        }
    }

    fn reads_ahead(_: SumKind) -> usize {
        0
    }

    unsafe fn pack(panel: &Panel<'_>, packed: Packed) {
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { pack(panel, packed) }
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
        by_rows!(1 2 3 4 5 6);
    }

    unsafe fn finish(kind: SumKind, finish: &TileFinish<'_>) {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn with_features(kind: SumKind, finish: &TileFinish<'_>) {
            // SAFETY: the caller's promises are those that are asked for.
            unsafe { finish::in_f32::<ROWS, COLS>(kind, finish) }
        }
        // SAFETY: as above.
        unsafe { with_features(kind, finish) }
    }
}

#[target_feature(enable = "avx2")]
unsafe fn multiply<const R: usize, const V: usize>(kind: SumKind, tile: &OutputTile) {
    // SAFETY: the caller's promises: panels of `R` rows and `COLS` columns reach `depth` further.
    unsafe {
        if kind == SumKind::Wide {
            pairs::<R, V>(tile, 1, tile.a.high, tile.b.high);
        }
        pairs::<R, V>(tile, 0, tile.a.words, tile.b.words);
        for at in (0..R).flat_map(|r| (0..V).map(move |v| r * COLS + v * LANES)) {
            let high: *mut __m256i = tile.state.add(ROWS * COLS + at).cast();
            let low = _mm256_loadu_si256(tile.state.add(at).cast());
            let is_new = tile.is_first && kind == SumKind::Mixed;
            let before = if is_new {
                _mm256_setzero_si256()
            } else {
                _mm256_loadu_si256(high)
            };
            let rest = _mm256_sub_epi32(low, _mm256_slli_epi32::<16>(before));
            _mm256_storeu_si256(
                high,
                _mm256_add_epi32(before, _mm256_srai_epi32::<16>(rest)),
            );
        }
    }
}

/// Adds the products of a block to part 0, `low`, or 1, `high`, of the state.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn pairs<const R: usize, const V: usize>(
    tile: &OutputTile,
    part: usize,
    a: *const i32,
    b: *const i32,
) {
    let mut sums = [[_mm256_setzero_si256(); V]; R];
    // SAFETY: `state` holds `ROWS` by `COLS` sums a part; the panels reach `depth` further, rounded
    // up to whole pairs.
    unsafe {
        let state = |r: usize, v: usize| -> *mut __m256i {
            tile.state.add((part * ROWS + r) * COLS + v * LANES).cast()
        };
        if !tile.is_first {
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = _mm256_loadu_si256(state(r, v));
                }
            }
        }
        for step in 0..tile.depth.div_ceil(2) {
            let mut columns = [_mm256_setzero_si256(); V];
            for v in 0..V {
                columns[v] = _mm256_loadu_si256(b.add(step * COLS + v * LANES).cast());
            }
            for r in 0..R {
                let row = _mm256_set1_epi32(*a.add(step * R + r));
                for v in 0..V {
                    let products = _mm256_madd_epi16(row, columns[v]);
                    sums[r][v] = _mm256_add_epi32(sums[r][v], products);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                _mm256_storeu_si256(state(r, v), sums[r][v]);
            }
        }
    }
}

/// Packs a panel, see [`Micro::pack`].
#[target_feature(enable = "avx2")]
unsafe fn pack(panel: &Panel<'_>, packed: Packed) {
    let operand = panel.operand;
    for start in (0..operand.depth).step_by(DEPTH_UNIT) {
        let depth = (operand.depth - start).min(DEPTH_UNIT);
        let mut codes = [[0i16; DEPTH_UNIT]; COLS];
        for (r, codes) in codes.iter_mut().enumerate().take(panel.rows) {
            let at = (panel.first + r) * operand.row_stride + start * operand.depth_stride;
            if operand.depth_stride == 1 {
                codes[..depth].copy_from_slice(&operand.q[at..at + depth]);
            } else {
                let column = operand.q[at..].iter().step_by(operand.depth_stride);
                codes[..depth]
                    .iter_mut()
                    .zip(column)
                    .for_each(|(code, &q)| *code = q);
            }
        }
        let to = start / 2 * panel.width;
        // SAFETY: whole units of depth have room.
        unsafe {
            store(panel.width, &codes, packed.words.add(to));
            if panel.kind == SumKind::Wide {
                codes
                    .iter_mut()
                    .flatten()
                    .for_each(|q| *q = q.wrapping_add(128) >> 8);
                store(panel.width, &codes, packed.high.add(to));
            }
        }
    }
}

/// Stores pairs along the depth, those of `width` rows side by side.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(width: usize, codes: &[[i16; DEPTH_UNIT]; COLS], to: *mut i32) {
    for t in 0..DEPTH_UNIT / 2 {
        for (r, row) in codes.iter().enumerate().take(width) {
            let pair = i32::from(row[2 * t] as u16) | i32::from(row[2 * t + 1]) << 16;
            // SAFETY: the caller's promise of room.
            unsafe { *to.add(t * width + r) = pair }
        }
    }
}
