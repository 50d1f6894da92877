//! Tables made once on the host from `+ - * /` in f64: rotary angles, cosines of schedules.
//!
//! No libm, so that every host makes the same bits.

mod rope;

pub use rope::{FrequencyScaling, RopePairs, RopeTable};

pub use concord_formats::trigonometry::sin_cos;

use crate::math::pow2_f64;

const LN_2: [f64; 2] = [0.693_147_180_485_539_1, 7.440_617_110_012_397e-11];
/// `e^x` for moderate `x`, by a Taylor series after halving the range.
pub fn exp(x: f64) -> f64 {
    let n = (x / (LN_2[0] + LN_2[1])).round_ties_even();
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..24 {
        term = term * r / f64::from(k);
        sum += term;
    }
    sum * pow2_f64(n as i32)
}

/// `ln(x)` for normal positive `x`, by the series of the inverse hyperbolic tangent.
pub fn ln(x: f64) -> f64 {
    let exponent = ((x.to_bits() >> 52) as i32) - 1023;
    let mantissa = x * pow2_f64(-exponent);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let mut power = s;
    let mut sum = 0.0;
    for k in 0..40 {
        sum += power / f64::from(2 * k + 1);
        power *= z;
    }
    let k = f64::from(exponent);
    k * LN_2[0] + (k * LN_2[1] + 2.0 * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_agree_with_the_library_to_f64_accuracy() {
        for i in 1..4_000 {
            let x = f64::from(i) * 37.31;
            assert!((ln(x) / x.ln() - 1.0).abs() < 1e-14, "{x}");
            let y = f64::from(i - 2_000) / 100.0;
            assert!((exp(y) / y.exp() - 1.0).abs() < 1e-13, "{y}");
        }
    }
}
