//! Exact products of a coded row with codes that lie in pairs: what attention over pages is made
//! of.
//!
//! The row is cut into balanced 8-bit digits, `q = 256 * high + low`. A digit times a code is at
//! most `128 * 32,639` in magnitude, so 512 of them add up in 32 bits without loss, and no lane
//! ever has to be added to another one.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::cpu::pages::LANES;
use crate::isa::Isa;

/// Most elements of a row.
pub(crate) const DEPTH_MAX: usize = 512;

/// A row, digit by digit; elements in pairs.
#[derive(Clone, Copy)]
pub(super) struct Digits<'a> {
    pub(super) high: &'a [i16],
    pub(super) low: &'a [i16],
}

/// Codes `[pairs, stride, 2]`: element `2 i + e` of column j stands at `(i * stride + j) * 2 + e`.
#[derive(Clone, Copy)]
pub(super) struct Pairs<'a> {
    pub(super) codes: &'a [i16],
    pub(super) stride: usize,
}

per_isa! {
    /// The digits of codes, in memory of the same length.
    pub(super) fn split(codes: &[i16], high: &mut [i16], low: &mut [i16]) = split_body
}

#[inline(always)]
fn split_body(codes: &[i16], high: &mut [i16], low: &mut [i16]) {
    for ((&q, high), low) in codes.iter().zip(high).zip(low) {
        // |q| <= 32,639: nothing wraps.
        *high = (q + 128) >> 8;
        *low = q - (*high << 8);
    }
}

/// The sums over the row's elements of both digits with each of the first columns of `b`, as many
/// as `high` has.
///
/// # Panics
/// Where the row is deeper than [`DEPTH_MAX`] or of odd length, the columns are no multiple of
/// [`LANES`], or `b` has fewer of them.
pub(super) fn sums(isa: Isa, row: Digits<'_>, b: Pairs<'_>, high: &mut [i32], low: &mut [i32]) {
    let (depth, width) = (row.high.len(), high.len());
    assert!(depth <= DEPTH_MAX && depth.is_multiple_of(2) && row.low.len() == depth);
    assert!(width.is_multiple_of(LANES) && low.len() == width && width <= b.stride);
    assert!(b.codes.len() >= depth * b.stride);
    match isa {
        // SAFETY: the guard has seen the instructions, the assertions the bounds.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.is_available() => unsafe { sums_avx512(row, b, high, low) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.is_available() => unsafe { sums_avx2(row, b, high, low) },
        _ => sums_portable(row, b, high, low),
    }
}

fn sums_portable(row: Digits<'_>, b: Pairs<'_>, high: &mut [i32], low: &mut [i32]) {
    high.fill(0);
    low.fill(0);
    let lines = b.codes.chunks_exact(2 * b.stride);
    let pairs = row.high.chunks_exact(2).zip(row.low.chunks_exact(2));
    for (line, (h, l)) in lines.zip(pairs) {
        let columns = line.chunks_exact(2).zip(high.iter_mut().zip(&mut *low));
        for (pair, (high, low)) in columns {
            let (first, second) = (i32::from(pair[0]), i32::from(pair[1]));
            *high += i32::from(h[0]) * first + i32::from(h[1]) * second;
            *low += i32::from(l[0]) * first + i32::from(l[1]) * second;
        }
    }
}

/// Two digits of a pair of elements, as a lane.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn pair(digits: &[i16], index: usize) -> i32 {
    let [first, second] = [digits[2 * index], digits[2 * index + 1]];
    i32::from(first) & 0xffff | i32::from(second) << 16
}

/// # Safety
/// The machine has AVX-512 VNNI; the bounds are those of [`sums`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sums_avx512(row: Digits<'_>, b: Pairs<'_>, high: &mut [i32], low: &mut [i32]) {
    let mut first = 0;
    while first < high.len() {
        let vectors = ((high.len() - first) / LANES).min(4);
        // SAFETY: the caller's promises; these columns are there.
        unsafe {
            match vectors {
                4 => group_avx512::<4>(row, b, first, high, low),
                3 => group_avx512::<3>(row, b, first, high, low),
                2 => group_avx512::<2>(row, b, first, high, low),
                _ => group_avx512::<1>(row, b, first, high, low),
            }
        }
        first += vectors * LANES;
    }
}

/// `V` vectors of columns from `first` on.
///
/// # Safety
/// As for [`sums_avx512`]; there are so many columns.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn group_avx512<const V: usize>(
    row: Digits<'_>,
    b: Pairs<'_>,
    first: usize,
    high: &mut [i32],
    low: &mut [i32],
) {
    let (mut h, mut l) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
    let mut at = b.codes.as_ptr().wrapping_add(2 * first);
    for i in 0..row.high.len() / 2 {
        let digits = [pair(row.high, i), pair(row.low, i)].map(|pair| _mm512_set1_epi32(pair));
        for v in 0..V {
            // SAFETY: pair i of these columns is there.
            let columns = unsafe { _mm512_loadu_si512(at.add(2 * LANES * v).cast()) };
            h[v] = _mm512_dpwssd_epi32(h[v], digits[0], columns);
            l[v] = _mm512_dpwssd_epi32(l[v], digits[1], columns);
        }
        at = at.wrapping_add(2 * b.stride);
    }
    for v in 0..V {
        let range = first + LANES * v..first + LANES * (v + 1);
        // SAFETY: the slices are 16 sums long.
        unsafe {
            _mm512_storeu_si512(high[range.clone()].as_mut_ptr().cast(), h[v]);
            _mm512_storeu_si512(low[range].as_mut_ptr().cast(), l[v]);
        }
    }
}

/// # Safety
/// The machine has AVX2; the bounds are those of [`sums`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sums_avx2(row: Digits<'_>, b: Pairs<'_>, high: &mut [i32], low: &mut [i32]) {
    const HALF: usize = LANES / 2;
    for first in (0..high.len()).step_by(LANES) {
        let (mut h, mut l) = ([_mm256_setzero_si256(); 2], [_mm256_setzero_si256(); 2]);
        let mut at = b.codes.as_ptr().wrapping_add(2 * first);
        for i in 0..row.high.len() / 2 {
            let digits = [pair(row.high, i), pair(row.low, i)].map(|pair| _mm256_set1_epi32(pair));
            for v in 0..2 {
                // SAFETY: pair i of these columns is there.
                let columns = unsafe { _mm256_loadu_si256(at.add(2 * HALF * v).cast()) };
                h[v] = _mm256_add_epi32(h[v], _mm256_madd_epi16(digits[0], columns));
                l[v] = _mm256_add_epi32(l[v], _mm256_madd_epi16(digits[1], columns));
            }
            at = at.wrapping_add(2 * b.stride);
        }
        for v in 0..2 {
            let range = first + HALF * v..first + HALF * (v + 1);
            // SAFETY: the slices are 8 sums long.
            unsafe {
                _mm256_storeu_si256(high[range.clone()].as_mut_ptr().cast(), h[v]);
                _mm256_storeu_si256(low[range].as_mut_ptr().cast(), l[v]);
            }
        }
    }
}

per_isa! {
    /// Rounds sums: `2^(a + b)` of row and column times `256 * high + low`, the steps of a product.
    pub(super) fn round(high: &[i32], low: &[i32], a_scale: f64, b_scales: &[f64], out: &mut [f32])
     = round_body
}

#[inline(always)]
fn round_body(high: &[i32], low: &[i32], a_scale: f64, b_scales: &[f64], out: &mut [f32]) {
    let sums = high.iter().zip(low);
    for ((out, (&high, &low)), &b_scale) in out.iter_mut().zip(sums).zip(b_scales) {
        *out = (sum(high, low) * a_scale * b_scale) as f32;
    }
}

per_isa! {
    /// As [`round`], where the exponents of columns have been folded into the row.
    pub(super) fn round_folded(high: &[i32], low: &[i32], scale: f64, out: &mut [f32])
     = round_folded_body
}

#[inline(always)]
fn round_folded_body(high: &[i32], low: &[i32], scale: f64, out: &mut [f32]) {
    for (out, (&high, &low)) in out.iter_mut().zip(high.iter().zip(low)) {
        *out = (sum(high, low) * scale) as f32;
    }
}

/// The exact sum: far below `2^53`.
#[inline(always)]
fn sum(high: i32, low: i32) -> f64 {
    f64::from(high) * 256.0 + f64::from(low)
}
