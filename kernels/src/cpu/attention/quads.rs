//! Exact products of coded rows with codes of 8 bits that lie in quads: what attention over pages
//! of 8-bit codes is made of. Twin of [`super::digits`].
//!
//! Codes lie as bytes, 128 higher: a sum over bytes is the sum over codes plus 128 times the sum of
//! the row. A code of a row times one of 8 bits is at most `32,639 * 127`, so 512 of them add up in
//! 32 bits without loss. Sums on the way may wrap: what is left after the subtraction is exact.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::digits::DEPTH_MAX;
use crate::cpu::pages::{CODE_ZERO, LANES};
use crate::isa::Isa;

/// Elements of a quad.
const QUAD: usize = 4;

/// Rows of codes, as products with quads take them, in memory that is used again.
#[derive(Default)]
pub(super) struct QuadRows {
    /// Elements of a row, filled up to whole quads.
    depth: usize,
    codes: Vec<i16>,
    /// The balanced 8-bit digits of the codes.
    high: Vec<i8>,
    low: Vec<i8>,
    /// What a sum over bytes is too large by, one for each row.
    excess: Vec<i32>,
}

/// A row of [`QuadRows`].
#[derive(Clone, Copy)]
pub(super) struct QuadRow<'a> {
    codes: &'a [i16],
    high: &'a [i8],
    low: &'a [i8],
    excess: i32,
}

/// Bytes `[quads, stride, 4]`: element `4 i + e` of column j stands at `(i * stride + j) * 4 + e`.
#[derive(Clone, Copy)]
pub(super) struct Quads<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) stride: usize,
}

impl QuadRows {
    /// Makes room for `rows` rows of `elements` codes each.
    pub(super) fn reset(&mut self, rows: usize, elements: usize) {
        self.depth = elements.next_multiple_of(QUAD);
        let len = rows * self.depth;
        self.codes.resize(len, 0);
        self.high.resize(len, 0);
        self.low.resize(len, 0);
        self.excess.resize(rows, 0);
    }

    /// Sets a row.
    pub(super) fn put(&mut self, isa: Isa, row: usize, codes: &[i16]) {
        let of_row = row * self.depth..(row + 1) * self.depth;
        let own = &mut self.codes[of_row.clone()];
        own[..codes.len()].copy_from_slice(codes);
        own[codes.len()..].fill(0);
        let (high, low) = (&mut self.high[of_row.clone()], &mut self.low[of_row]);
        split(isa, own, high, low, &mut self.excess[row]);
    }

    pub(super) fn row(&self, row: usize) -> QuadRow<'_> {
        let of_row = row * self.depth..(row + 1) * self.depth;
        QuadRow {
            codes: &self.codes[of_row.clone()],
            high: &self.high[of_row.clone()],
            low: &self.low[of_row],
            excess: self.excess[row],
        }
    }
}

per_isa! {
    /// The digits of codes, and 128 times their sum.
    fn split(codes: &[i16], high: &mut [i8], low: &mut [i8], excess: &mut i32) = split_body
}

#[inline(always)]
fn split_body(codes: &[i16], high: &mut [i8], low: &mut [i8], excess: &mut i32) {
    let mut sum = 0;
    for ((&q, high), low) in codes.iter().zip(high).zip(low) {
        // |q| <= 32,639: nothing wraps but the low digit, into its sign.
        *high = ((q + 128) >> 8) as i8;
        *low = q as i8;
        sum += i32::from(q);
    }
    *excess = i32::from(CODE_ZERO) * sum;
}

/// The sums over the row's elements with each of the first columns of `b`, as many as `sums` has.
///
/// # Panics
/// Where the row is deeper than [`DEPTH_MAX`], the columns are no multiple of [`LANES`], or `b` has
/// fewer of them.
pub(super) fn sums(isa: Isa, row: QuadRow<'_>, b: Quads<'_>, sums: &mut [i32]) {
    let (depth, width) = (row.codes.len(), sums.len());
    assert!(depth <= DEPTH_MAX && depth.is_multiple_of(QUAD));
    assert!(row.high.len() == depth && row.low.len() == depth);
    assert!(width.is_multiple_of(LANES) && width <= b.stride);
    assert!(b.bytes.len() >= depth * b.stride);
    match isa {
        // SAFETY: the guard has seen the instructions, the assertions the bounds.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.is_available() => unsafe { sums_avx512(row, b, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.is_available() => unsafe { sums_avx2(row, b, sums) },
        _ => sums_portable(row, b, sums),
    }
}

fn sums_portable(row: QuadRow<'_>, b: Quads<'_>, sums: &mut [i32]) {
    sums.fill(0);
    let lines = b.bytes.chunks_exact(QUAD * b.stride);
    for (line, codes) in lines.zip(row.codes.chunks_exact(QUAD)) {
        for (quad, sum) in line.chunks_exact(QUAD).zip(sums.iter_mut()) {
            let product = |i: usize| i32::from(quad[i]) * i32::from(codes[i]);
            let all = (product(0) + product(1)) + (product(2) + product(3));
            *sum = sum.wrapping_add(all);
        }
    }
    for sum in sums {
        *sum = sum.wrapping_sub(row.excess);
    }
}

/// # Safety
/// The machine has AVX-512 VNNI; the bounds are those of [`sums`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sums_avx512(row: QuadRow<'_>, b: Quads<'_>, sums: &mut [i32]) {
    let mut first = 0;
    while first < sums.len() {
        let vectors = ((sums.len() - first) / LANES).min(8);
        // SAFETY: the caller's promises; these columns are there.
        let done = unsafe {
            match vectors {
                8 => group_avx512::<8>(row, b, first, sums),
                4..=7 => group_avx512::<4>(row, b, first, sums),
                2 | 3 => group_avx512::<2>(row, b, first, sums),
                _ => group_avx512::<1>(row, b, first, sums),
            }
        };
        first += done * LANES;
    }
}

/// `V` vectors of columns from `first` on; returns V.
///
/// # Safety
/// As for [`sums_avx512`]; there are so many columns.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn group_avx512<const V: usize>(
    row: QuadRow<'_>,
    b: Quads<'_>,
    first: usize,
    sums: &mut [i32],
) -> usize {
    let (mut h, mut l) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
    let mut at = b.bytes.as_ptr().wrapping_add(QUAD * first);
    for i in 0..row.high.len() / QUAD {
        // SAFETY: both have this quad, as bytes of any alignment.
        let quad =
            |digits: &[i8]| unsafe { digits.as_ptr().add(QUAD * i).cast::<i32>().read_unaligned() };
        let digits = [quad(row.high), quad(row.low)].map(|quad| _mm512_set1_epi32(quad));
        for v in 0..V {
            // SAFETY: this quad of these columns is there.
            let columns = unsafe { _mm512_loadu_si512(at.add(QUAD * LANES * v).cast()) };
            h[v] = _mm512_dpbusd_epi32(h[v], columns, digits[0]);
            l[v] = _mm512_dpbusd_epi32(l[v], columns, digits[1]);
        }
        at = at.wrapping_add(QUAD * b.stride);
    }
    let excess = _mm512_set1_epi32(row.excess);
    for v in 0..V {
        let range = first + LANES * v..first + LANES * (v + 1);
        let both = _mm512_add_epi32(_mm512_slli_epi32::<8>(h[v]), l[v]);
        let sum = _mm512_sub_epi32(both, excess);
        // SAFETY: the slice is 16 sums long.
        unsafe { _mm512_storeu_si512(sums[range].as_mut_ptr().cast(), sum) };
    }
    V
}

/// # Safety
/// The machine has AVX2; the bounds are those of [`sums`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sums_avx2(row: QuadRow<'_>, b: Quads<'_>, sums: &mut [i32]) {
    /// Columns of a vector of words.
    const COLUMNS: usize = LANES / QUAD;
    let excess = _mm256_set1_epi32(row.excess);
    for first in (0..sums.len()).step_by(LANES) {
        // Of each column, the sums of its first and of its second pairs.
        let mut pairs = [_mm256_setzero_si256(); QUAD];
        let mut at = b.bytes.as_ptr().wrapping_add(QUAD * first);
        for codes in row.codes.as_chunks::<QUAD>().0 {
            let lanes = codes
                .iter()
                .rev()
                .fold(0, |all, &code| all << 16 | u64::from(code as u16));
            let codes = _mm256_set1_epi64x(lanes as i64);
            for (v, pairs) in pairs.iter_mut().enumerate() {
                // SAFETY: this quad of these columns is there.
                let bytes = unsafe { _mm_loadu_si128(at.add(QUAD * COLUMNS * v).cast()) };
                let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), codes);
                *pairs = _mm256_add_epi32(*pairs, products);
            }
            at = at.wrapping_add(QUAD * b.stride);
        }
        for (half, pairs) in pairs.as_chunks::<2>().0.iter().enumerate() {
            let mixed = _mm256_hadd_epi32(pairs[0], pairs[1]);
            let sum = _mm256_sub_epi32(_mm256_permute4x64_epi64::<0xd8>(mixed), excess);
            let range = first + LANES / 2 * half..first + LANES / 2 * (half + 1);
            // SAFETY: the slice is 8 sums long.
            unsafe { _mm256_storeu_si256(sums[range].as_mut_ptr().cast(), sum) };
        }
    }
}

per_isa! {
    /// Rounds sums: `2^(a + b)` of row and column times the sum, the steps of a product.
    pub(super) fn round(sums: &[i32], a_scale: f64, b_scales: &[f64], out: &mut [f32]) = round_body
}

#[inline(always)]
fn round_body(sums: &[i32], a_scale: f64, b_scales: &[f64], out: &mut [f32]) {
    for ((out, &sum), &b_scale) in out.iter_mut().zip(sums).zip(b_scales) {
        *out = (f64::from(sum) * a_scale * b_scale) as f32;
    }
}

per_isa! {
    /// As [`round`], where the exponents of columns have been folded into the row.
    pub(super) fn round_folded(sums: &[i32], scale: f64, out: &mut [f32]) = round_folded_body
}

#[inline(always)]
fn round_folded_body(sums: &[i32], scale: f64, out: &mut [f32]) {
    for (out, &sum) in out.iter_mut().zip(sums) {
        *out = (f64::from(sum) * scale) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest codes, and every depth of a quad: sums of 512 elements do not wrap.
    #[test]
    fn every_instruction_set_gives_the_exact_sums() {
        for (depth, largest) in [
            (512, true),
            (512, false),
            (64, false),
            (34, false),
            (3, true),
        ] {
            let code = |i: usize, limit: i64| match largest {
                true if i.is_multiple_of(2) => limit,
                true => -limit,
                false => (i as i64 * 7_919) % (2 * limit + 1) - limit,
            };
            let codes: Vec<i16> = (0..depth).map(|i| code(i, 32_639) as i16).collect();
            let columns = 48;
            let b = |column: usize, i: usize| code(i + 3 * column + column / 7, 127);
            let mut bytes = vec![0; depth.next_multiple_of(QUAD) * columns];
            for (column, i) in (0..columns).flat_map(|c| (0..depth).map(move |i| (c, i))) {
                bytes[(i / QUAD * columns + column) * QUAD + i % QUAD] =
                    (b(column, i) + i64::from(CODE_ZERO)) as u8;
            }
            let exact: Vec<i64> = (0..columns)
                .map(|c| (0..depth).map(|i| i64::from(codes[i]) * b(c, i)).sum())
                .collect();
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let mut rows = QuadRows::default();
                rows.reset(2, depth);
                rows.put(isa, 1, &codes);
                let mut got = vec![0; columns];
                let quads = Quads {
                    bytes: &bytes,
                    stride: columns,
                };
                sums(isa, rows.row(1), quads, &mut got);
                let got: Vec<i64> = got.into_iter().map(i64::from).collect();
                assert_eq!(got, exact, "{isa}, {depth} elements");
            }
        }
    }
}
