//! Blocks to codes in registers, 32 codes a vector.
//!
//! A code is the number times `2^-exp`, rounded once. The power of two is multiplied into the
//! scales beforehand, which is exact, as are all products of a scale and a small integer (together
//! at most 23 bits). So one fma that adds `1.5 * 2^23` leaves the code in the low half of each
//! lane, rounded to nearest even; formats with a minimum round the number to f32 first, as their
//! definition says. Codes of 4 bits name one of 16 numbers: these are computed once for each scale,
//! and looked up.

mod floats;
mod nf4;
mod small;
mod wide;

use std::arch::x86_64::*;

pub(super) use floats::{Bf16, F16};
pub(super) use nf4::Nf4;
pub(super) use small::{Q4_0, Q8_0};
pub(super) use wide::{Q4K, Q6K};

use super::rows::LaneOrder;

/// A format of blocks, decoded by AVX-512.
pub(super) trait Blocks {
    /// Numbers of a block: a multiple of 32.
    const ELEMENTS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Numbers that [`Self::scales`] writes for a block.
    const SCALES: usize;
    /// Groups of a block.
    const GROUPS: usize;
    /// Where the numbers of a run stand.
    const ORDER: LaneOrder;
    /// The vectors of a group, one after another.
    type Group: AsRef<[__m512i]>;

    /// Writes the scales of `count` blocks, times `factor`.
    ///
    /// # Safety
    /// The machine has AVX-512; the blocks lie at `blocks`; `out` has room for a multiple of 16
    /// numbers.
    unsafe fn scales(blocks: *const u8, count: usize, factor: f32, out: *mut f32);

    /// The codes of a group, given the scales of its block.
    ///
    /// # Safety
    /// The machine has AVX-512; a block lies at `block`, and its scales at `scales`.
    unsafe fn decode(block: *const u8, group: usize, scales: *const f32) -> Self::Group;
}

/// `1.5 * 2^23`: added to a number below 2^15, it leaves the nearest integer in the low 16 bits.
const ROUNDER: f32 = 12_582_912.0;

#[inline]
#[target_feature(enable = "avx512f")]
fn rounder() -> __m512 {
    _mm512_set1_ps(ROUNDER)
}

/// The low halves of the lanes of `low`, beside those of `high`.
#[inline]
#[target_feature(enable = "avx512f")]
fn beside(low: __m512, high: __m512) -> __m512i {
    let (low, high) = (_mm512_castps_si512(low), _mm512_castps_si512(high));
    let upper = _mm512_set1_epi32(-0x1_0000);
    // upper ? high << 16 : low
    _mm512_ternarylogic_epi32::<0xca>(upper, _mm512_slli_epi32::<16>(high), low)
}

/// 0, 1, 2 ... 15, moved by `start`.
#[inline]
#[target_feature(enable = "avx512f")]
fn counting(start: f32) -> __m512 {
    let from_zero = _mm512_setr_ps(
        0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
    );
    _mm512_add_ps(from_zero, _mm512_set1_ps(start))
}

/// Writes the f16 that each of `count` blocks of `BYTES` has at `AT`, times `factor`.
///
/// # Safety
/// As [`Blocks::scales`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn half_scales<const BYTES: usize, const AT: usize>(
    blocks: *const u8,
    count: usize,
    factor: f32,
    out: *mut f32,
) {
    let mut halves = [0u16; 16];
    for first in (0..count).step_by(16) {
        let some = (count - first).min(16);
        for (i, half) in halves[..some].iter_mut().enumerate() {
            // SAFETY: the caller's promise of so many blocks.
            *half = unsafe {
                let at = blocks.add((first + i) * BYTES + AT);
                at.cast::<u16>().read_unaligned()
            };
        }
        // SAFETY: 16 halves; the caller's promise of room.
        unsafe {
            let wide = _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast()));
            let scaled = _mm512_mul_ps(wide, _mm512_set1_ps(factor));
            _mm512_storeu_ps(out.add(first), scaled);
        }
    }
}
