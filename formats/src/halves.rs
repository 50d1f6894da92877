//! Small floats, widened: exact.

/// The number of an IEEE binary16, given by its bits. Subnormals are kept.
#[inline(always)]
pub const fn f16_to_f32(half: u16) -> f32 {
    let (sign, rest) = ((half as u32 & 0x8000) << 16, (half as u32 & 0x7fff) << 13);
    // Exponent and mantissa stand where f32 has them; the bias is 112 less. Without a branch, so
    // that compilers make vectors of it.
    let finite = (f32::from_bits(rest) * f32::from_bits((127 + 112) << 23)).to_bits();
    let is_finite = rest < 31 << 23;
    let magnitude = if is_finite {
        finite
    } else {
        0x7f80_0000 | rest
    };
    f32::from_bits(sign | magnitude)
}

/// The number of a bfloat16, given by its bits.
#[inline(always)]
pub const fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits((half as u32) << 16)
}

/// The number of an FP8 e4m3fn: four bits of exponent (bias 7), three of mantissa, no infinity; 127
/// and 255 are NaN.
#[inline(always)]
pub const fn e4m3_to_f32(byte: u8) -> f32 {
    let (sign, rest) = ((byte as u32 & 0x80) << 24, byte as u32 & 0x7f);
    // A whole number of the exponent's step, of at most four bits. Without a branch, so that
    // compilers make vectors of it.
    let is_normal = (rest >= 8) as u32;
    let whole = rest & 7 | is_normal << 3;
    let exponent = (rest >> 3) + (1 - is_normal);
    let finite = (whole as f32 * f32::from_bits((exponent + 127 - 10) << 23)).to_bits();
    let magnitude = if rest == 127 { 0x7fc0_0000 } else { finite };
    f32::from_bits(sign | magnitude)
}

/// The number of an e8m0: `2^(byte - 127)`, the smallest of which is subnormal; 255 is NaN.
pub const fn e8m0_to_f32(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits((byte as u32) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_floats_by_their_definition() {
        for bits in 0..=u16::MAX {
            let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
            let magnitude = match exponent {
                0 => mantissa * 2_f64.powi(-24),
                31 if mantissa == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1_024.0 + mantissa) * 2_f64.powi(exponent - 25),
            };
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let (found, expected) = (f64::from(f16_to_f32(bits)), sign * magnitude);
            assert!(
                found.is_nan() && expected.is_nan() || found.to_bits() == expected.to_bits(),
                "{bits}"
            );
        }
        for byte in 0..=255 {
            let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f64::from(byte & 7));
            let magnitude = match exponent {
                0 => mantissa * 2_f64.powi(-9),
                _ => (8.0 + mantissa) * 2_f64.powi(exponent - 10),
            };
            let sign = if byte >> 7 == 1 { -1.0 } else { 1.0 };
            let found = f64::from(e4m3_to_f32(byte));
            match byte & 127 {
                127 => assert!(found.is_nan()),
                _ => assert_eq!(found.to_bits(), (sign * magnitude).to_bits(), "{byte}"),
            }
            match byte {
                255 => assert!(e8m0_to_f32(byte).is_nan()),
                _ => assert_eq!(
                    f64::from(e8m0_to_f32(byte)),
                    2_f64.powi(i32::from(byte) - 127)
                ),
            }
        }
    }
}
