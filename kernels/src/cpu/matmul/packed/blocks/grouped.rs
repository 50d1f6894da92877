//! Blocks with a scale of 32 bits and perhaps a zero point before their codes. A number is rounded
//! before it becomes a code, so only the factor is written down beforehand; the scale is read with
//! the block.

use std::arch::x86_64::*;

use super::super::rows::LaneOrder;
use super::nf4::looked_up;
use super::{Blocks, beside, counting, rounder};
use crate::packed::INT8_STEP;

/// `N` codes of 4 bits around a zero point; two blocks of 32 are a unit.
pub(in super::super) struct U4<const N: usize>;

/// Codes of 8 bits around a zero point.
pub(in super::super) struct U8;

/// Numbers of 8 bits, e4m3.
pub(in super::super) struct E4m3;

/// Integers of LLM.int8.
pub(in super::super) struct Int8;

/// Bytes of the scale.
const SCALE: usize = 4;
/// Bytes of the scale and the zero point.
const SCALE_AND_ZERO: usize = 6;

/// The scale of a block, in each lane.
///
/// # Safety
/// A block lies at `block`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scale(block: *const u8) -> __m512 {
    // SAFETY: a block begins with its scale.
    _mm512_set1_ps(unsafe { block.cast::<f32>().read_unaligned() })
}

/// The zero point of a block.
///
/// # Safety
/// A block that has one lies at `block`.
#[inline]
unsafe fn zero(block: *const u8) -> i32 {
    // SAFETY: it follows the scale.
    i32::from(unsafe { block.add(SCALE).cast::<i16>().read_unaligned() })
}

/// Writes the factor for each of `count` units.
///
/// # Safety
/// There is room.
#[inline]
unsafe fn factors(count: usize, factor: f32, out: *mut f32) {
    for unit in 0..count {
        // SAFETY: the caller's promise.
        unsafe { out.add(unit).write(factor) };
    }
}

impl<const N: usize> U4<N> {
    const BLOCK_BYTES: usize = SCALE_AND_ZERO + N / 2;
    /// 64, or the whole block where it has more.
    const UNIT: usize = if N < 64 { 64 } else { N };

    /// The codes of 32 numbers of a unit, from number `first` on.
    ///
    /// # Safety
    /// As [`Blocks::decode`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn run(unit: *const u8, first: usize, factor: __m512) -> __m512i {
        // SAFETY: the caller's promises; the codes of a block follow its zero point.
        unsafe {
            let block = unit.add(first / N * Self::BLOCK_BYTES);
            let levels = counting(-(zero(block) as f32));
            let numbers = _mm512_mul_ps(levels, scale(block));
            let table = _mm512_castps_si512(_mm512_fmadd_ps(numbers, factor, rounder()));
            looked_up(block.add(SCALE_AND_ZERO + first % N / 2), table)
        }
    }
}

impl<const N: usize> Blocks for U4<N> {
    const ELEMENTS: usize = Self::UNIT;
    const BYTES: usize = Self::UNIT / N * Self::BLOCK_BYTES;
    const SCALES: usize = 1;
    const GROUPS: usize = Self::UNIT / 64;
    const ORDER: LaneOrder = LaneOrder::Natural;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(_: *const u8, count: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { factors(count, factor, out) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(unit: *const u8, group: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises.
        unsafe {
            let factor = _mm512_set1_ps(*scales);
            let first = 64 * group;
            [
                Self::run(unit, first, factor),
                Self::run(unit, first + 32, factor),
            ]
        }
    }
}

impl Blocks for U8 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 70;
    const SCALES: usize = 1;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Halves;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(_: *const u8, count: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { factors(count, factor, out) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(block: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a block has 64 codes after its zero point.
        unsafe {
            let (scale, factor) = (scale(block), _mm512_set1_ps(*scales));
            let zero = _mm512_set1_epi32(zero(block));
            let lane = |at: usize| {
                let codes = _mm_loadu_si128(block.add(SCALE_AND_ZERO + at).cast());
                let codes = _mm512_sub_epi32(_mm512_cvtepu8_epi32(codes), zero);
                let numbers = _mm512_mul_ps(_mm512_cvtepi32_ps(codes), scale);
                _mm512_fmadd_ps(numbers, factor, rounder())
            };
            [beside(lane(0), lane(16)), beside(lane(32), lane(48))]
        }
    }
}

impl Blocks for E4m3 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 68;
    const SCALES: usize = 1;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Halves;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(_: *const u8, count: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { factors(count, factor, out) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(block: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a block has 64 codes after its scale.
        unsafe {
            let (scale, factor) = (scale(block), _mm512_set1_ps(*scales));
            // An e4m3 is an f16 with a bias that is 8 less and seven bits of mantissa missing. Rows
            // with its NaN are poisoned, and their codes do not matter.
            let bias = _mm512_set1_ps(256.0);
            let lane = |at: usize| {
                let codes = _mm_loadu_si128(block.add(SCALE + at).cast());
                let words = _mm256_cvtepu8_epi16(codes);
                let rest = _mm256_and_si256(words, _mm256_set1_epi16(0x7f));
                let sign = _mm256_and_si256(words, _mm256_set1_epi16(0x80));
                let rest = _mm256_slli_epi16::<7>(rest);
                let half = _mm256_or_si256(rest, _mm256_slli_epi16::<8>(sign));
                let exact = _mm512_mul_ps(_mm512_cvtph_ps(half), bias);
                _mm512_fmadd_ps(_mm512_mul_ps(exact, scale), factor, rounder())
            };
            [beside(lane(0), lane(16)), beside(lane(32), lane(48))]
        }
    }
}

impl Blocks for Int8 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 68;
    const SCALES: usize = 1;
    const GROUPS: usize = 1;
    const ORDER: LaneOrder = LaneOrder::Halves;
    type Group = [__m512i; 2];

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scales(_: *const u8, count: usize, factor: f32, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { factors(count, factor, out) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn decode(block: *const u8, _: usize, scales: *const f32) -> Self::Group {
        // SAFETY: the caller's promises; a block has 64 codes after its scale.
        unsafe {
            let (scale, factor) = (scale(block), _mm512_set1_ps(*scales));
            let step = _mm512_set1_ps(INT8_STEP);
            let lane = |at: usize| {
                let codes = _mm_loadu_si128(block.add(SCALE + at).cast());
                let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
                let numbers = _mm512_mul_ps(_mm512_mul_ps(codes, scale), step);
                _mm512_fmadd_ps(numbers, factor, rounder())
            };
            [beside(lane(0), lane(16)), beside(lane(32), lane(48))]
        }
    }
}
