//! Floats of 16 bits: 64 of them are taken as a unit.

use std::arch::x86_64::*;

use super::super::rows::LaneOrder;
use super::{Blocks, beside, rounder};

/// IEEE binary16.
pub(in super::super) struct F16;

/// The upper half of a binary32.
pub(in super::super) struct Bf16;

impl Blocks for F16 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 128;
    const SCALES: usize = 0;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Halves;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(_: *const u8, _: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promise of room.
        unsafe { *out = factor }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(unit: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a unit is 128 bytes.
        unsafe {
            let factor = _mm512_set1_ps(*scales);
            let half = |at: usize| {
                let floats = _mm512_cvtph_ps(_mm256_loadu_si256(unit.add(at).cast()));
                _mm512_fmadd_ps(floats, factor, rounder())
            };
            [beside(half(0), half(32)), beside(half(64), half(96))]
        }
    }
}

impl Blocks for Bf16 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 128;
    const SCALES: usize = 0;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Natural;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(_: *const u8, _: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promise of room.
        unsafe { *out = factor }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(unit: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a unit is 128 bytes.
        unsafe {
            let factor = _mm512_set1_ps(*scales);
            let run = |at: usize| {
                let pairs = _mm512_loadu_si512(unit.add(at).cast());
                let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
                let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(-0x1_0000));
                let even = _mm512_fmadd_ps(even, factor, rounder());
                let odd = _mm512_fmadd_ps(_mm512_castsi512_ps(odd), factor, rounder());
                beside(even, odd)
            };
            [run(0), run(64)]
        }
    }
}
