//! One or two rows of A, cut into two digits: a product takes two instructions for 32 codes, and w
//! is not cut.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::super::avx512::add_pairs_at;
use super::super::super::lines::CacheLine;
use super::super::super::task::TaskOutput;
use super::super::blocks::{Blocks, DEPTH, Scales};
use super::super::rows::{DigitRows, RUN};
use super::{DIGIT_ROWS, Row, Rows, finish, padded, prefetch};
use crate::packed::PackedRows;

/// The outputs of some rows of w.
///
/// # Safety
/// The machine has AVX-512 VNNI; A has the depth of w; nobody else holds the outputs.
pub(super) unsafe fn fill<B: Blocks>(
    a: &DigitRows<'_>,
    w: &PackedRows,
    rows: Range<usize>,
    output: TaskOutput<'_>,
) {
    let all = Rows::of(w);
    for row in rows {
        let w_row = all.row(row);
        // SAFETY: the caller's promises.
        unsafe {
            let sums = match a.count {
                1 => sums::<B, 1>(a, &w_row),
                _ => sums::<B, 2>(a, &w_row),
            };
            finish(w, row, &sums[..a.count], a.first, &a.scales, output);
        }
    }
}

/// Sums of low and of high digits, in lanes; of two sets that take turns, so that additions wait
/// less for each other.
type Sums<const R: usize> = [[[__m512i; 2]; R]; 2];

/// The exact sums of a row with each row of A.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn sums<B: Blocks, const R: usize>(
    rows: &DigitRows<'_>,
    row: &Row<'_>,
) -> [f64; DIGIT_ROWS] {
    /// Bytes that are on their way to the cache.
    const AHEAD: usize = 4_096;
    let mut totals = [0.0; DIGIT_ROWS];
    let mut scales = Scales::new();
    let scales = scales.of::<B>();
    let whole = row.cols / B::ELEMENTS;
    let together = DEPTH / B::ELEMENTS;
    for first in (0..whole).step_by(together) {
        let count = (whole - first).min(together);
        let mut sums: Sums<R> = [[[_mm512_setzero_si512(); 2]; R]; 2];
        // SAFETY: `count` units lie from `at` on; A has lines for all runs.
        unsafe {
            let mut at = row.bytes.as_ptr().add(first * B::BYTES);
            let mut a = rows.lines_of(first * B::ELEMENTS / RUN);
            B::scales(at, count, row.factor, scales);
            for unit in 0..count {
                prefetch::<B>(at.wrapping_add(AHEAD));
                a = add_unit::<B, R>(&mut sums, at, scales.add(unit * B::SCALES), a);
                at = at.add(B::BYTES);
            }
            add_totals(&mut totals, &sums);
        }
    }
    if !row.cols.is_multiple_of(B::ELEMENTS) {
        let unit = padded(&row.bytes[whole * B::BYTES..]);
        let mut sums: Sums<R> = [[[_mm512_setzero_si512(); 2]; R]; 2];
        // SAFETY: a whole unit; A has lines for the last runs.
        unsafe {
            B::scales(unit.as_ptr(), 1, row.factor, scales);
            let a = rows.lines_of(whole * B::ELEMENTS / RUN);
            add_unit::<B, R>(&mut sums, unit.as_ptr(), scales, a);
            add_totals(&mut totals, &sums);
        }
    }
    totals
}

/// Adds the products of a unit; gives the lines of A that follow.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_unit<B: Blocks, const R: usize>(
    sums: &mut Sums<R>,
    unit: *const u8,
    scales: *const f32,
    mut a: *const CacheLine,
) -> *const CacheLine {
    for group in 0..B::GROUPS {
        // SAFETY: the caller's promises.
        let codes = unsafe { B::decode(unit, group, scales) };
        for (v, &codes) in codes.as_ref().iter().enumerate() {
            for sum in &mut sums[v % 2] {
                // SAFETY: as above: two lines for each row of A.
                unsafe {
                    sum[0] = add_pairs_at(sum[0], a, codes);
                    sum[1] = add_pairs_at(sum[1], a.add(1), codes);
                    a = a.add(2);
                }
            }
        }
    }
    a
}

/// Adds the lanes of all sums: integers that f64 holds, so no addition rounds.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn add_totals<const R: usize>(totals: &mut [f64; DIGIT_ROWS], sums: &Sums<R>) {
    let wide = |sums: __m512i| {
        let first = _mm512_cvtepi32_pd(_mm512_castsi512_si256(sums));
        let second = _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64::<1>(sums));
        _mm512_add_pd(first, second)
    };
    for (r, total) in totals[..R].iter_mut().enumerate() {
        let mut lanes = _mm512_setzero_pd();
        for set in sums {
            let [low, high] = set[r].map(wide);
            let high = _mm512_mul_pd(high, _mm512_set1_pd(256.0));
            lanes = _mm512_add_pd(lanes, _mm512_add_pd(low, high));
        }
        *total += _mm512_reduce_add_pd(lanes);
    }
}
