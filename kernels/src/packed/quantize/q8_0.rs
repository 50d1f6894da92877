//! Q8_0: 32 codes of 8 bits with an f16 scale.

use super::{half, nearest};

/// The scale is the largest magnitude / 127; a code is the number times 1 / scale, before the scale
/// is rounded to f16, to the nearest whole number and away from zero from a half.
#[inline(always)]
pub(super) fn encode(values: &[f32; 32], block: &mut [u8; 34]) -> bool {
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let scale = largest / 127.0;
    let Some(stored) = half(scale) else {
        return false;
    };
    block[..2].copy_from_slice(&stored.to_le_bytes());
    // Where f16 has no such small scale, nor 1 / scale may be finite, all codes name zero.
    let inverse = if stored.to_f32() == 0.0 {
        0.0
    } else {
        1.0 / scale
    };
    for (byte, value) in block[2..].iter_mut().zip(values) {
        let product = value * inverse;
        let code = nearest(product.abs()).min(127) as i8;
        *byte = if product < 0.0 { -code } else { code } as u8;
    }
    true
}
