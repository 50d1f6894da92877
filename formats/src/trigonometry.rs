//! Sine and cosine from `+ - * /` in f64, without a library of the machine: every host makes the
//! same bits. Rotary angles and learning rates are made of them.

/// pi / 2 in three parts; the first two have 33 bits, so that products with integers below 2^20
/// are exact.
const HALF_PI: [f64; 3] = [
    f64::from_bits(0x3ff9_21fb_5440_0000),
    f64::from_bits(0x3dd0_b461_1a60_0000),
    f64::from_bits(0x3ba3_198a_2e03_7073),
];
#[expect(
    clippy::approx_constant,
    reason = "bits of the contract stand here, not in a library"
)]
const TWO_OVER_PI: f64 = 0.636_619_772_367_581_4;

/// pi, as far as two of the parts have it.
pub const PI: f64 = 2.0 * (HALF_PI[0] + HALF_PI[1]);

/// `(sin x, cos x)` for `|x|` below 2^20.
pub fn sin_cos(x: f64) -> (f64, f64) {
    let n = (x * TWO_OVER_PI).round_ties_even();
    let r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2];
    let z = r * r;
    let (mut sin_term, mut cos_term) = (r, 1.0);
    let (mut sin, mut cos) = (r, 1.0);
    for k in 1..14 {
        let k = f64::from(k);
        cos_term = -cos_term * z / ((2.0 * k - 1.0) * (2.0 * k));
        sin_term = -sin_term * z / ((2.0 * k) * (2.0 * k + 1.0));
        cos += cos_term;
        sin += sin_term;
    }
    match (n as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_agree_with_the_library_to_f64_accuracy() {
        for i in 1..4_000 {
            let x = f64::from(i) * 37.31;
            let (sin, cos) = sin_cos(x);
            assert!(
                (sin - x.sin()).abs() < 1e-13 && (cos - x.cos()).abs() < 1e-13,
                "{x}"
            );
        }
    }
}
