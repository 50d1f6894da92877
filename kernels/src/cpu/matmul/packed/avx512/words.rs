//! Several rows of A: `vpdpwssd` on codes and `vpdpbusd` on high digits, as `plan` has it,
//! are fewer instructions than two products of digits.
//!
//! The depth is cut so that its part of A stays in the first cache while some rows of w meet it;
//! the sums of these wait in memory.

#![expect(
    clippy::needless_range_loop,
    reason = "counted loops are unrolled, sums stay registers"
)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::super::avx512::add_pairs_at;
use super::super::super::lanes::{OUTPUTS, add_lanes};
use super::super::super::lines::CacheLine;
use super::super::super::task::TaskOutput;
use super::super::blocks::{Blocks, Scales};
use super::super::rows::{BLOCK, WordRows, high_digits};
use super::{ROWS, Row, Rows, finish, padded, prefetch};
use crate::packed::PackedRows;

/// Rows of w that meet a part of A one after another.
pub(super) const TOGETHER: usize = 16;
/// Depth of a part of A: 24 KiB of eight rows.
const PART: usize = 1_024;
/// Parts of rows of w that are on their way to the cache.
const AHEAD: usize = 2;

/// Sums of products and of high digits with each row of A, in lanes.
type Sums<const R: usize> = [[CacheLine; R]; 2];

/// The outputs of some rows of w.
///
/// # Safety
/// The machine has AVX-512 VNNI; A has the depth of w; nobody else holds the outputs.
pub(super) unsafe fn fill<B: Blocks>(
    a: &WordRows<'_>,
    w: &PackedRows,
    rows: Range<usize>,
    output: TaskOutput<'_>,
) {
    macro_rules! by_count {
        ($($count:literal)*) => {
            match a.count {
                // SAFETY: the caller's promises.
                $($count => unsafe { fill_by::<B, $count>(a, w, rows, output) },)*
                count => unreachable!("{count} rows"),
            }
        };
    }
    by_count!(3 4 5 6 7 8)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn fill_by<B: Blocks, const R: usize>(
    a: &WordRows<'_>,
    w: &PackedRows,
    rows: Range<usize>,
    output: TaskOutput<'_>,
) {
    const { assert!(R <= ROWS && ROWS == OUTPUTS && BLOCK.is_multiple_of(PART)) };
    let mut sums = [[[CacheLine::ZERO; R]; 2]; TOGETHER];
    let all = Rows::of(w);
    for first in rows.clone().step_by(TOGETHER) {
        let rows = first..rows.end.min(first + TOGETHER);
        let mut totals = [[0.0; OUTPUTS]; TOGETHER];
        let together: [Row<'_>; TOGETHER] =
            std::array::from_fn(|i| all.row((first + i).min(rows.end - 1)));
        for start in (0..w.cols()).step_by(PART) {
            let end = w.cols().min(start + PART);
            let starts = start.is_multiple_of(BLOCK);
            let starts = starts.then(|| a.starts_of(start / BLOCK));
            for (i, row) in rows.clone().enumerate() {
                let ahead = ahead_of::<B>(&all, &rows, row, start);
                // SAFETY: the caller's promises.
                unsafe {
                    add_part::<B, R>(a, &together[i], start..end, starts, ahead, &mut sums[i]);
                    if end.is_multiple_of(BLOCK) || end == w.cols() {
                        add_totals(&mut totals[i], &sums[i]);
                    }
                }
            }
        }
        for (totals, row) in totals.iter().zip(rows) {
            // SAFETY: the caller's promise.
            unsafe { finish(w, row, &totals[..R], a.first, &a.scales, output) };
        }
    }
}

/// Where the part of a row lies that is to come [`AHEAD`] parts later: rows follow each other, then
/// the next part of them, then the first part of the rows after them.
#[inline]
fn ahead_of<B: Blocks>(all: &Rows<'_>, rows: &Range<usize>, row: usize, start: usize) -> *const u8 {
    let (mut row, mut start) = (row + AHEAD, start);
    if row >= rows.end && start + PART < all.w.cols() {
        (row, start) = (row - rows.len(), start + PART);
    } else if row >= rows.end {
        start = 0;
    }
    let at = row * all.width + start / B::ELEMENTS * B::BYTES;
    all.bytes.as_ptr().wrapping_add(at)
}

/// Adds the products of a part of a row to the sums, or to what those of a block start with.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_part<B: Blocks, const R: usize>(
    a: &WordRows<'_>,
    row: &Row<'_>,
    depth: Range<usize>,
    starts: Option<&[CacheLine]>,
    ahead: *const u8,
    sums: &mut Sums<R>,
) {
    let mut scales = Scales::new();
    let scales = scales.of::<B>();
    let [mut low, mut high] = [[_mm512_setzero_si512(); R]; 2];
    for r in 0..R {
        (low[r], high[r]) = match starts {
            Some(starts) => (_mm512_setzero_si512(), starts[r].load()),
            None => (sums[0][r].load(), sums[1][r].load()),
        };
    }
    let units = depth.start / B::ELEMENTS..depth.end / B::ELEMENTS;
    let mut a = a.lines_of(depth.start);
    // SAFETY: the units lie in the row; A has lines for all of them.
    unsafe {
        let at = row.bytes.as_ptr().add(units.start * B::BYTES);
        if !units.is_empty() {
            B::scales(at, units.len(), row.factor, scales);
        }
        for unit in 0..units.len() {
            prefetch::<B>(ahead.wrapping_add(unit * B::BYTES));
            let (at, scales) = (at.add(unit * B::BYTES), scales.add(unit * B::SCALES));
            a = add_unit::<B, R>(&mut low, &mut high, at, scales, a);
        }
        if !depth.end.is_multiple_of(B::ELEMENTS) {
            let unit = padded(&row.bytes[units.end * B::BYTES..]);
            B::scales(unit.as_ptr(), 1, row.factor, scales);
            add_unit::<B, R>(&mut low, &mut high, unit.as_ptr(), scales, a);
        }
    }
    for r in 0..R {
        sums[0][r].store(low[r]);
        sums[1][r].store(high[r]);
    }
}

/// Adds the products of a unit; gives the lines of A that follow.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_unit<B: Blocks, const R: usize>(
    low: &mut [__m512i; R],
    high: &mut [__m512i; R],
    unit: *const u8,
    scales: *const f32,
    mut a: *const CacheLine,
) -> *const CacheLine {
    for group in 0..B::GROUPS {
        // SAFETY: the caller's promises; three lines for each row of A.
        unsafe {
            let codes = B::decode(unit, group, scales);
            for pair in codes.as_ref().chunks_exact(2) {
                let digits =
                    _mm512_xor_si512(high_digits([pair[0], pair[1]]), _mm512_set1_epi8(i8::MIN));
                for r in 0..R {
                    low[r] = add_pairs_at(low[r], a.add(3 * r), pair[0]);
                }
                for r in 0..R {
                    let line = (*a.add(3 * r + 2)).load();
                    high[r] = _mm512_dpbusd_epi32(high[r], digits, line);
                }
                for r in 0..R {
                    low[r] = add_pairs_at(low[r], a.add(3 * r + 1), pair[1]);
                }
                a = a.add(3 * R);
            }
        }
    }
    a
}

/// Adds the sums of a block.
#[inline(never)]
#[target_feature(enable = "avx512f")]
unsafe fn add_totals<const R: usize>(totals: &mut [f64; OUTPUTS], sums: &Sums<R>) {
    let [low, high] = sums;
    let lanes = |lines: &[CacheLine; R]| lines.each_ref().map(|line| [line.load()]);
    add_lanes(totals, &lanes(low), &lanes(high));
}
