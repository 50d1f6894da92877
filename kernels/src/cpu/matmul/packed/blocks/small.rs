//! Blocks of 32 numbers with a scale: two of them are taken as a unit.

use std::arch::x86_64::*;

use super::super::rows::LaneOrder;
use super::{Blocks, beside, counting, half_scales, rounder};

/// Codes of 8 bits.
pub(in super::super) struct Q8_0;

/// Codes of 4 bits around 8.
pub(in super::super) struct Q4_0;

impl Blocks for Q8_0 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 68;
    const SCALES: usize = 2;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Halves;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(units: *const u8, count: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promises.
        unsafe { half_scales::<34, 0>(units, 2 * count, factor, out) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(unit: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a block has 32 codes from byte 2 on.
        unsafe {
            let run = |run: usize| {
                let scale = _mm512_set1_ps(*scales.add(run));
                let half = |at: usize| {
                    let codes = _mm_loadu_si128(unit.add(34 * run + at).cast());
                    let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
                    _mm512_fmadd_ps(codes, scale, rounder())
                };
                beside(half(2), half(18))
            };
            [run(0), run(1)]
        }
    }
}

impl Blocks for Q4_0 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 36;
    const SCALES: usize = 2;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Halves;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(units: *const u8, count: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promises.
        unsafe { half_scales::<18, 0>(units, 2 * count, factor, out) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(unit: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a block has 16 bytes of codes from byte 2 on.
        unsafe {
            let run = |run: usize| {
                let scale = _mm512_set1_ps(*scales.add(run));
                let table = _mm512_castps_si512(_mm512_fmadd_ps(counting(-8.0), scale, rounder()));
                let bytes = _mm_loadu_si128(unit.add(18 * run + 2).cast());
                let bytes = _mm512_cvtepu8_epi32(bytes);
                // Code i of the table is word 2i of it: the low halves of lanes look up the low
                // four bits of a byte, the high halves the high four. Higher bits of a word do not
                // matter.
                let low = _mm512_slli_epi32::<1>(bytes);
                let high = _mm512_slli_epi32::<13>(bytes);
                let places = _mm512_set1_epi32(0x1e_0000);
                // low, which has no bits there, or places & high
                let words = _mm512_ternarylogic_epi32::<0xf8>(low, places, high);
                _mm512_permutexvar_epi16(words, table)
            };
            [run(0), run(1)]
        }
    }
}
