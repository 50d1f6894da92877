//! Blocks to codes in registers, 32 codes a vector.
//!
//! What is short of 64 numbers is taken in *units* of several, so that vectors come in pairs.
//!
//! A code is the number times `2^-exp`, rounded once. The power of two is multiplied into the
//! scales beforehand, which is exact, as are all products of a scale and a small integer (together
//! at most 23 bits). So one fma that adds `1.5 * 2^23` leaves the code in the low half of each
//! lane, rounded to nearest even; formats with a minimum, or a scale of 32 bits, round the number
//! to f32 first, as their definition says. Codes of 4 bits name one of 16 numbers: these are
//! computed once for each scale, and looked up.

mod floats;
mod grouped;
mod nf4;
mod small;
mod wide;

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

pub(super) use floats::{Bf16, F16};
pub(super) use grouped::{E4m3, Int8, U4, U8};
pub(super) use nf4::Nf4;
pub(super) use small::{Q4_0, Q8_0};
pub(super) use wide::{Q4K, Q6K};

use super::rows::LaneOrder;

/// A format of blocks, decoded by AVX-512.
pub(super) trait Blocks {
    /// Numbers of a unit: a multiple of 64 that divides [`DEPTH`].
    const ELEMENTS: usize;
    /// Bytes of a unit.
    const BYTES: usize;
    /// Numbers that [`Self::scales`] writes for a unit.
    const SCALES: usize;
    /// Groups of a unit.
    const GROUPS: usize;
    /// Where the numbers of a run stand.
    const ORDER: LaneOrder;
    /// The vectors of a group, one after another: an even number of them.
    type Group: AsRef<[__m512i]>;

    /// Writes the scales of `count` units of at most [`DEPTH`] numbers in all, times `factor`.
    ///
    /// # Safety
    /// The machine has AVX-512; the units lie at `units`; `out` has room for a multiple of 64
    /// numbers.
    unsafe fn scales(units: *const u8, count: usize, factor: f32, out: *mut f32);

    /// The codes of a group, given the scales of its unit.
    ///
    /// # Safety
    /// The machine has AVX-512; a unit lies at `unit`, and its scales at `scales`.
    unsafe fn decode(unit: *const u8, group: usize, scales: *const f32) -> Self::Group;
}

/// Numbers of which scales are written at a time, at most.
pub(super) const DEPTH: usize = 8_192;

/// Memory for the scales of the units of [`DEPTH`] numbers.
#[repr(align(64))]
pub(super) struct Scales([MaybeUninit<f32>; 512]);

impl Scales {
    pub(super) fn new() -> Self {
        Self([MaybeUninit::uninit(); 512])
    }

    /// Room for the scales of a format.
    pub(super) fn of<B: Blocks>(&mut self) -> *mut f32 {
        const { assert!(DEPTH / B::ELEMENTS * B::SCALES <= 512 && B::ELEMENTS.is_multiple_of(64)) };
        self.0.as_mut_ptr().cast()
    }
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
    let place = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let places = _mm512_mullo_epi32(place, _mm512_set1_epi32(BYTES as i32));
    for first in (0..count).step_by(16) {
        let mask = u16::MAX >> (16 - (count - first).min(16));
        // SAFETY: the caller's promises of so many blocks, of at least four bytes from `AT` on, and
        // of room.
        unsafe {
            let at = blocks.add(first * BYTES + AT).cast();
            let words = _mm512_mask_i32gather_epi32::<1>(_mm512_setzero_si512(), mask, places, at);
            let wide = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
            let scaled = _mm512_mul_ps(wide, _mm512_set1_ps(factor));
            _mm512_storeu_ps(out.add(first), scaled);
        }
    }
}
