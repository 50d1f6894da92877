//! Blocks of 64 numbers that are levels of NF4.

use std::arch::x86_64::*;

use super::super::rows::LaneOrder;
use super::{Blocks, rounder};
use crate::packed::NF4_LEVELS;

/// Codes of 4 bits that name levels; a scale of 32 bits.
pub(in super::super) struct Nf4;

impl Blocks for Nf4 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 36;
    /// The scale as it is, then the factor: a level times the scale is rounded before it becomes a
    /// code.
    const SCALES: usize = 2;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Natural;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(blocks: *const u8, count: usize, factor: f32, out: *mut f32) {
        for block in 0..count {
            // SAFETY: the caller's promises; a block begins with its scale.
            unsafe {
                let scale = blocks.add(block * Self::BYTES).cast::<f32>();
                out.add(2 * block).write(scale.read_unaligned());
                out.add(2 * block + 1).write(factor);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(block: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a block has 32 bytes of codes from byte 4 on.
        unsafe {
            let levels = _mm512_loadu_ps(NF4_LEVELS.as_ptr());
            let numbers = _mm512_mul_ps(levels, _mm512_set1_ps(*scales));
            let factor = _mm512_set1_ps(*scales.add(1));
            let table = _mm512_castps_si512(_mm512_fmadd_ps(numbers, factor, rounder()));
            [
                looked_up(block.add(4), table),
                looked_up(block.add(20), table),
            ]
        }
    }
}

/// What 16 bytes of codes of 4 bits look up in a table: the high four bits of a byte come first.
///
/// # Safety
/// The machine has AVX-512; 16 bytes lie at `codes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn looked_up(codes: *const u8, table: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    let bytes = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(codes.cast()) });
    // Code i of the table is word 2i of it: the low halves of lanes look up the high four bits of a
    // byte, the high halves the low four.
    let first = _mm512_and_si512(_mm512_srli_epi32::<3>(bytes), _mm512_set1_epi32(30));
    let second = _mm512_slli_epi32::<17>(bytes);
    let places = _mm512_set1_epi32(0x1e_0000);
    // first, which has no bits there, or places & second
    let words = _mm512_ternarylogic_epi32::<0xf8>(first, places, second);
    _mm512_permutexvar_epi16(words, table)
}
