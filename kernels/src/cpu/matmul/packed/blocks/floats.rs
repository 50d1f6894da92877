//! Floats of 16 bits: 32 of them are taken as a block.

use std::arch::x86_64::*;

use super::super::rows::LaneOrder;
use super::{Blocks, beside, rounder};

/// IEEE binary16.
pub(in super::super) struct F16;

/// The upper half of a binary32.
pub(in super::super) struct Bf16;

impl Blocks for F16 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 64;
    const SCALES: usize = 0;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Halves;
    type Group = [__m512i; 1];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(_: *const u8, _: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promise of room.
        unsafe { *out = factor }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(block: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a block is 64 bytes.
        unsafe {
            let factor = _mm512_set1_ps(*scales);
            let first = _mm512_cvtph_ps(_mm256_loadu_si256(block.cast()));
            let second = _mm512_cvtph_ps(_mm256_loadu_si256(block.add(32).cast()));
            let first = _mm512_fmadd_ps(first, factor, rounder());
            [beside(first, _mm512_fmadd_ps(second, factor, rounder()))]
        }
    }
}

impl Blocks for Bf16 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 64;
    const SCALES: usize = 0;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Natural;
    type Group = [__m512i; 1];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(_: *const u8, _: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promise of room.
        unsafe { *out = factor }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(block: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a block is 64 bytes.
        unsafe {
            let factor = _mm512_set1_ps(*scales);
            let pairs = _mm512_loadu_si512(block.cast());
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
            let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(-0x1_0000));
            let even = _mm512_fmadd_ps(even, factor, rounder());
            let odd = _mm512_fmadd_ps(_mm512_castsi512_ps(odd), factor, rounder());
            [beside(even, odd)]
        }
    }
}
