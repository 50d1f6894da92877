//! Blocks of 256 numbers, whose runs have scales of their own.

use std::arch::x86_64::*;

use super::super::super::lines::CacheLine;
use super::super::rows::LaneOrder;
use super::{Blocks, beside, counting, rounder};

/// Codes of 4 bits, with scales and minima of 6 bits.
pub(in super::super) struct Q4K;

/// Codes of 6 bits, with scales of 8 bits.
pub(in super::super) struct Q6K;

impl Blocks for Q4K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 144;
    /// Of each of 8 runs its scale and its minimum.
    const SCALES: usize = 16;
    const GROUPS: usize = 4;
    const ORDER: LaneOrder = LaneOrder::Natural;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn scales(blocks: *const u8, count: usize, factor: f32, out: *mut f32) {
        for first in (0..count).step_by(4) {
            // SAFETY: the caller's promises; past the last block it is taken again.
            unsafe {
                let at = |i: usize| blocks.add((first + i).min(count - 1) * Self::BYTES).cast();
                let heads = heads([at(0), at(1), at(2), at(3)]);
                let mut codes = CacheLine::ZERO;
                codes.store(six_bits(heads));
                // The f16 of a block are the first four bytes of its head.
                let halves = _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, heads));
                let halves = _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(factor));
                let mut pairs = [0.0; 4];
                _mm256_storeu_ps(pairs.as_mut_ptr().cast(), halves);
                for (i, &pair) in pairs.iter().enumerate() {
                    let codes = _mm_load_si128((&raw const codes).cast::<__m128i>().add(i));
                    let codes = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
                    let both = _mm512_castpd_ps(_mm512_set1_pd(pair));
                    let out = out.add((first + i) * Self::SCALES);
                    _mm512_storeu_ps(out, _mm512_mul_ps(codes, both));
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(block: *const u8, group: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a group has 32 bytes of codes.
        unsafe {
            let table = |run: usize| {
                let scale = _mm512_set1_ps(*scales.add(2 * run));
                let min = _mm512_set1_ps(*scales.add(2 * run + 1));
                // The number, rounded to f32; then its code.
                let number = _mm512_fmsub_ps(counting(0.0), scale, min);
                _mm512_castps_si512(_mm512_add_ps(number, rounder()))
            };
            let bytes = _mm256_loadu_si256(block.add(16 + 32 * group).cast());
            let bytes = _mm512_cvtepu8_epi16(bytes);
            // Code i of the table is word 2i of it. Bits of a word beyond the fifth do not matter.
            let low = _mm512_add_epi16(bytes, bytes);
            let high = _mm512_and_si512(_mm512_srli_epi16::<3>(bytes), _mm512_set1_epi16(0x1e));
            [
                _mm512_permutexvar_epi16(low, table(2 * group)),
                _mm512_permutexvar_epi16(high, table(2 * group + 1)),
            ]
        }
    }
}

/// The first 16 bytes of four blocks.
///
/// # Safety
/// The machine has AVX-512; so many bytes lie at each.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn heads(at: [*const __m128i; 4]) -> __m512i {
    // SAFETY: the caller's promises.
    let [a, b, c, d] = at.map(|at| unsafe { _mm_loadu_si128(at) });
    // Under a mask a load puts its bytes in place; an insertion would take the unit of shuffles.
    let two = _mm512_mask_broadcast_i32x4(_mm512_castsi128_si512(a), 0x00f0, b);
    let three = _mm512_mask_broadcast_i32x4(two, 0x0f00, c);
    _mm512_mask_broadcast_i32x4(three, 0xf000, d)
}

/// The codes of four heads: of each run its scale and its minimum, 6 bits each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn six_bits(heads: __m512i) -> __m512i {
    let lanes = |a, b, c, d| _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d));
    // Words 1 and 2 have six bits of the scales and of the minima of runs 0 to 3, and above them
    // two of those of runs 4 to 7, whose other four are in word 3.
    let first = _mm512_shuffle_epi32::<0b10_01_10_01>(heads);
    let first = _mm512_srlv_epi32(first, lanes(0, 0, 2, 2));
    let six = lanes(0x3f3f_3f3f, 0x3f3f_3f3f, 0x3030_3030, 0x3030_3030);
    let last = _mm512_shuffle_epi32::<0b11_11_11_11>(heads);
    let last = _mm512_srlv_epi32(last, lanes(0, 0, 0, 4));
    let four = lanes(0, 0, 0x0f0f_0f0f, 0x0f0f_0f0f);
    // first & six | last & four
    let first = _mm512_and_si512(first, six);
    let codes = _mm512_ternarylogic_epi32::<0xf8>(first, last, four);
    let beside = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    _mm512_shuffle_epi8(codes, _mm512_broadcast_i32x4(beside))
}

impl Blocks for Q6K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 210;
    /// One for each 16 numbers.
    const SCALES: usize = 16;
    const GROUPS: usize = 2;
    const ORDER: LaneOrder = LaneOrder::Halves;
    type Group = [__m512i; 4];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn scales(blocks: *const u8, count: usize, factor: f32, out: *mut f32) {
        for block in 0..count {
            // SAFETY: the caller's promises; 16 scales and an f16 end a block.
            unsafe {
                let at = blocks.add(block * Self::BYTES);
                let codes = _mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(192).cast()));
                let half = at.add(208).cast::<i16>().read_unaligned();
                let scale = _mm512_cvtph_ps(_mm256_set1_epi16(half));
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(factor));
                let scales = _mm512_mul_ps(_mm512_cvtepi32_ps(codes), scale);
                _mm512_storeu_ps(out.add(block * Self::SCALES), scales);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(block: *const u8, group: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a group has 64 bytes of low parts and 32 of high ones.
        unsafe {
            let fours = _mm512_loadu_si512(block.add(64 * group).cast());
            let twos = _mm256_loadu_si256(block.add(128 + 32 * group).cast());
            let twos = _mm512_broadcast_i64x4(twos);
            let halves =
                |low: i64, high: i64| _mm512_setr_epi64(low, low, low, low, high, high, high, high);
            // The two bits of a run come to bits 4 and 5 of each byte.
            let first = _mm512_sllv_epi64(twos, halves(4, 2));
            let second = _mm512_srlv_epi64(twos, halves(0, 2));
            let nibbles = _mm512_set1_epi8(15);
            let runs = [(fours, first), (_mm512_srli_epi64::<4>(fours), second)];
            let [first, second] = runs.map(|(four, two)| {
                // nibbles ? four : two
                let both = _mm512_ternarylogic_epi32::<0xca>(nibbles, four, two);
                let code = _mm512_and_si512(both, _mm512_set1_epi8(63));
                _mm512_sub_epi8(code, _mm512_set1_epi8(32))
            });
            let run = |run: usize, first: __m128i, second: __m128i| {
                let half = |codes: __m128i, at: usize| {
                    let scale = _mm512_set1_ps(*scales.add(8 * group + 2 * run + at));
                    let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
                    _mm512_fmadd_ps(codes, scale, rounder())
                };
                beside(half(first, 0), half(second, 1))
            };
            let part = |codes: __m512i| {
                [
                    _mm512_castsi512_si128(codes),
                    _mm512_extracti32x4_epi32::<1>(codes),
                    _mm512_extracti32x4_epi32::<2>(codes),
                    _mm512_extracti32x4_epi32::<3>(codes),
                ]
            };
            let ([a, b, c, d], [e, f, g, h]) = (part(first), part(second));
            [run(0, a, b), run(1, c, d), run(2, e, f), run(3, g, h)]
        }
    }
}
