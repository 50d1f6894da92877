//! Blocks of 32 numbers. Codes become whole numbers, then f32, then products: so zeros have the
//! signs that the scale gives them.

use super::halves::f16_to_f32;
use super::nibbles;
use super::tables::{E2M1_DOUBLED, IQ4_LEVELS};

/// The f16 at byte `at`.
#[inline(always)]
pub(super) fn half(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Code i is in the low half of byte i for i < 16, in the high half of byte i - 16 from there.
#[inline(always)]
fn each_nibble(codes: &[u8], out: &mut [f32; 32], value: impl Fn(usize, u8) -> f32) {
    for (i, byte) in codes.iter().enumerate() {
        let [low, high] = nibbles(*byte);
        out[i] = value(i, low);
        out[i + 16] = value(i + 16, high);
    }
}

#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (out, code) in out.iter_mut().zip(&block[2..]) {
        *out = scale * f32::from(*code as i8);
    }
}

#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    each_nibble(&block[2..], out, |_, code| {
        scale * f32::from(code as i8 - 8)
    });
}

#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, min) = (half(block, 0), half(block, 2));
    each_nibble(&block[4..], out, |_, code| scale * f32::from(code) + min);
}

/// The fifth bit of each code.
#[inline(always)]
fn fifth_bits(block: &[u8], at: usize) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    move |i| ((bits >> i & 1) as u8) << 4
}

#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    let fifth = fifth_bits(block, 2);
    each_nibble(&block[6..], out, |i, code| {
        scale * f32::from((code | fifth(i)) as i8 - 16)
    });
}

#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, min) = (half(block, 0), half(block, 2));
    let fifth = fifth_bits(block, 4);
    each_nibble(&block[8..], out, |i, code| {
        scale * f32::from(code | fifth(i)) + min
    });
}

#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half(block, 0);
    each_nibble(&block[2..], out, |_, code| {
        scale * f32::from(IQ4_LEVELS[usize::from(code)])
    });
}

#[inline(always)]
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    // 2^(e - 128), for the levels are doubled. 255 is no NaN here.
    let scale = match block[0] {
        e @ (0 | 1) => f32::from_bits(1 << (21 + e)),
        e => f32::from_bits((u32::from(e) - 1) << 23),
    };
    each_nibble(&block[1..], out, |_, code| {
        scale * f32::from(E2M1_DOUBLED[usize::from(code)])
    });
}
