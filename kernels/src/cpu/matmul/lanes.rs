//! The lanes of the sums of [`super::plan`], added for eight outputs at a time.

use std::arch::x86_64::*;

/// Outputs that are made at a time.
pub(super) const OUTPUTS: usize = 8;

/// Adds to the totals what the lanes of `low` and `high` stand for, row by row: integers below 2^53
/// in all, so no addition rounds.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_lanes<const R: usize, const N: usize>(
    totals: &mut [f64; OUTPUTS],
    low: &[[__m512i; N]; R],
    high: &[[__m512i; N]; R],
) {
    const { assert!(R * N <= OUTPUTS) };
    let [high, low] = lanes_added(carried::<R, N>(low, high));
    for i in 0..OUTPUTS {
        totals[i] += f64::from(high[i]) * 65_536.0 + f64::from(low[i]);
    }
}

/// What each lane adds to a sum: times `2^16`, then as it is.
#[inline]
#[target_feature(enable = "avx512f")]
fn carried<const R: usize, const N: usize>(
    low: &[[__m512i; N]; R],
    high: &[[__m512i; N]; R],
) -> [__m512i; 2 * OUTPUTS] {
    let mut parts = [_mm512_setzero_si512(); 2 * OUTPUTS];
    for r in 0..R {
        for n in 0..N {
            let rest = _mm512_sub_epi32(low[r][n], _mm512_slli_epi32::<16>(high[r][n]));
            let carry = _mm512_srai_epi32::<16>(rest);
            parts[r * N + n] = _mm512_add_epi32(high[r][n], carry);
            parts[OUTPUTS + r * N + n] = _mm512_and_si512(rest, _mm512_set1_epi32(0xffff));
        }
    }
    parts
}

/// The sum over the lanes of each vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes_added(x: [__m512i; 2 * OUTPUTS]) -> [[i32; OUTPUTS]; 2] {
    let zero = _mm512_setzero_si512();
    // A quarter of a vector ends with one lane of each of four vectors.
    let mut fours = [zero; 4];
    for i in 0..4 {
        let mut twos = [zero; 2];
        for j in 0..2 {
            let (a, b) = (x[4 * i + 2 * j], x[4 * i + 2 * j + 1]);
            twos[j] = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        }
        let [a, b] = twos;
        fours[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    }
    // Quarters are added to each other.
    let [a, b, c, d] = fours;
    let (a, b) = (quarters_added(a, b), quarters_added(c, d));
    let all = quarters_added(a, b);
    let mut lanes = [[0; OUTPUTS]; 2];
    // SAFETY: the two arrays are 16 lanes in a row.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), all) };
    lanes
}

/// The even quarters of both vectors plus the odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters_added(a: __m512i, b: __m512i) -> __m512i {
    let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
    _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
}
