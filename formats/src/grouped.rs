//! Codes with a scale of 32 bits and perhaps a zero point before them: what GPTQ, AWQ,
//! compressed-tensors, FP8 and LLM.int8 mean, with the numbers of a row that share a scale beside
//! each other.

use super::halves::e4m3_to_f32;
use super::{nibbles, single};

/// 1 / 127, as bitsandbytes writes it in f32.
pub const INT8_STEP: f32 = 0.007_874_016;

/// Bytes of the scale.
const SCALE: usize = 4;
/// Bytes of the scale and a zero point of 16 bits.
const SCALE_AND_ZERO: usize = 6;

/// The number of a code around a zero point: exact but for the product, which is rounded once.
#[inline(always)]
fn around(scale: f32, zero: i32) -> impl Fn(u8) -> f32 {
    move |code| scale * (i32::from(code) - zero) as f32
}

#[inline(always)]
fn zero(block: &[u8]) -> i32 {
    i32::from(i16::from_le_bytes([block[SCALE], block[SCALE + 1]]))
}

/// Number 2i is the high half of byte i, number 2i + 1 the low one, as in NF4.
#[inline(always)]
pub(super) fn u4<const B: usize, const N: usize>(block: &[u8; B], out: &mut [f32; N]) {
    let number = around(single(block), zero(block));
    let pairs = out.as_chunks_mut::<2>().0.iter_mut();
    for (pair, byte) in pairs.zip(&block[SCALE_AND_ZERO..]) {
        let [low, high] = nibbles(*byte);
        *pair = [number(high), number(low)];
    }
}

#[inline(always)]
pub(super) fn u8<const B: usize, const N: usize>(block: &[u8; B], out: &mut [f32; N]) {
    let number = around(single(block), zero(block));
    for (out, code) in out.iter_mut().zip(&block[SCALE_AND_ZERO..]) {
        *out = number(*code);
    }
}

#[inline(always)]
pub(super) fn e4m3<const B: usize, const N: usize>(block: &[u8; B], out: &mut [f32; N]) {
    let scale = single(block);
    for (out, code) in out.iter_mut().zip(&block[SCALE..]) {
        *out = e4m3_to_f32(*code) * scale;
    }
}

/// Two roundings, in this order.
#[inline(always)]
pub(super) fn int8<const B: usize, const N: usize>(block: &[u8; B], out: &mut [f32; N]) {
    let scale = single(block);
    for (out, code) in out.iter_mut().zip(&block[SCALE..]) {
        *out = f32::from(*code as i8) * scale * INT8_STEP;
    }
}

#[cfg(test)]
mod tests {
    use crate::BlockFormat;

    fn block(scale: f32, zero: Option<i16>, codes: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let zero = zero.into_iter().flat_map(i16::to_le_bytes);
        scale
            .to_le_bytes()
            .into_iter()
            .chain(zero)
            .chain(codes)
            .collect()
    }

    #[test]
    fn each_form_by_its_formula() {
        for (format, count) in [
            (BlockFormat::U4x32, 32),
            (BlockFormat::U4x64, 64),
            (BlockFormat::U4x128, 128),
        ] {
            let mut values = vec![0.0; count];
            format.decode(
                &block(0.1, Some(16), (0..count / 2).map(|_| 0xf3)),
                &mut values,
            );
            assert_eq!(values[..2], [-0.1, 0.1 * -13.0]);
            assert_eq!(values[count - 2..], values[..2]);
        }
        let mut values = [0.0; 64];
        BlockFormat::U8x64.decode(&block(0.3, Some(256), 0..64), &mut values);
        assert_eq!(values[63], 0.3 * -193.0);
        BlockFormat::E4m3x64.decode(&block(0.3, None, (0..64).map(|_| 0xb9)), &mut values);
        assert_eq!(values, [0.3 * -1.125; 64]);
        BlockFormat::Int8x64.decode(&block(3.3, None, (0..64).map(|_| 0x81)), &mut values);
        assert_eq!(values, [-127.0 * 3.3 * super::INT8_STEP; 64]);
        // A code of zero has the sign of its scale.
        BlockFormat::Int8x64.decode(&block(-1.0, None, [0; 64]), &mut values);
        assert!(values[0].is_sign_negative());
    }
}
