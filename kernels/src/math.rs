//! Elementary functions with one set of bits: fixed polynomials on `fma`, no libm.
//!
//! Each function is branch-free and `inline(always)`, so that the same source serves the scalar
//! reference and every SIMD width that the compiler makes of it. Polynomials are Taylor series,
//! fitted ones for `tanh` and `erf` (`kernels/tests/fit_tanh_erf.py`), with coefficients rounded to
//! f32; errors are at most 2 ulp (tested against f64 over every 7th input).

/// `log2(e)`, rounded to f32.
pub const LOG2_E: f32 = f32::from_bits(0x3fb8_aa3b);
/// `ln(2)`, rounded to f32.
pub const LN_2: f32 = f32::from_bits(0x3f31_7218);
/// The upper bits of `ln(2)`: times an integer below 2^9 it is exact.
const LN_2_HI: f32 = f32::from_bits(0x3f31_7200);
/// `ln(2) - LN_2_HI`.
const LN_2_LO: f32 = f32::from_bits(0x35bf_be8e);
/// Adding and subtracting it rounds to an integer, to nearest even, below 2^22.
const ROUNDER: f32 = 12_582_912.0;

/// `2^exp`: exact from -1,022 to 1,023, 0 below, NaN above (see
/// [`crate::reference::code::POISON`]).
#[inline(always)]
pub fn pow2_f64(exp: i32) -> f64 {
    match exp {
        -1022..=1023 => f64::from_bits(((exp + 1023) as u64) << 52),
        ..-1022 => 0.0,
        _ => f64::NAN,
    }
}

/// `2^exp` for `exp` in [-126, 127].
#[inline(always)]
pub fn pow2_f32(exp: i32) -> f32 {
    f32::from_bits(((exp + 127) as u32) << 23)
}

/// `p * 2^n` with one rounding, for `n` in [-150, 128]: two factors keep each in range.
#[inline(always)]
fn scale_by_pow2(p: f32, n: i32) -> f32 {
    let half = n >> 1;
    p * pow2_f32(half) * pow2_f32(n - half)
}

/// `2^x`.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    // Outside of this range the result is 0 or infinity. These comparisons let NaN pass unchanged,
    // which the opposite ones would not.
    let clamped = if x < -150.0 { -150.0 } else { x };
    let clamped = if clamped > 128.0 { 128.0 } else { clamped };
    let n = (clamped + ROUNDER) - ROUNDER;
    let r = clamped - n;
    let p = f32::from_bits(0x377f_e5fe);
    let p = p.mul_add(r, f32::from_bits(0x3921_8489));
    let p = p.mul_add(r, f32::from_bits(0x3aae_c3ff));
    let p = p.mul_add(r, f32::from_bits(0x3c1d_955b));
    let p = p.mul_add(r, f32::from_bits(0x3d63_5847));
    let p = p.mul_add(r, f32::from_bits(0x3e75_fdf0));
    let p = p.mul_add(r, f32::from_bits(0x3f31_7218));
    let p = p.mul_add(r, 1.0);
    scale_by_pow2(p, to_int(n))
}

/// `e^x`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = if x < -104.0 { -104.0 } else { x };
    let clamped = if clamped > 89.0 { 89.0 } else { clamped };
    let n = clamped.mul_add(LOG2_E, ROUNDER) - ROUNDER;
    let r = n.mul_add(-LN_2_HI, clamped);
    let r = n.mul_add(-LN_2_LO, r);
    let p = 1.0 / 5_040.0;
    let p = r.mul_add(p, 1.0 / 720.0);
    let p = r.mul_add(p, 1.0 / 120.0);
    let p = r.mul_add(p, 1.0 / 24.0);
    let p = r.mul_add(p, 1.0 / 6.0);
    let p = r.mul_add(p, 0.5);
    let p = r.mul_add(p, 1.0);
    let p = r.mul_add(p, 1.0);
    // 89 * log2(e) rounds to 128, and 2^128 does not fit: the two factors overflow to infinity.
    scale_by_pow2(p, to_int(n))
}

/// `ln(x)`: NaN below 0, minus infinity at 0.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let shift = if subnormal { -23 } else { 0 };
    // The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    let bits = scaled.to_bits() as i32;
    let exponent = (bits - 0x3f35_04f3) >> 23;
    let mantissa = f32::from_bits((bits - (exponent << 23)) as u32);
    let f = mantissa - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let p = 2.0 / 11.0;
    let p = z.mul_add(p, 2.0 / 9.0);
    let p = z.mul_add(p, 2.0 / 7.0);
    let p = z.mul_add(p, 2.0 / 5.0);
    let p = z.mul_add(p, 2.0 / 3.0);
    let r = z * p;
    let half_square = 0.5 * f * f;
    let k = (exponent + shift) as f32;
    let tail = s.mul_add(half_square + r, k * LN_2_LO);
    let value = k.mul_add(LN_2_HI, f - (half_square - tail));
    let value = if x == f32::INFINITY { x } else { value };
    let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
    if x < 0.0 || x.is_nan() {
        f32::NAN
    } else {
        value
    }
}

/// The bits of a float without its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;

/// `magnitude` with the sign of `x`.
#[inline(always)]
fn with_sign_of(magnitude: f32, x: f32) -> f32 {
    f32::from_bits(magnitude.to_bits() | (x.to_bits() & !MAGNITUDE))
}

/// `tanh(x)`: -1 and 1 at the ends, -0 of -0.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = f32::from_bits(x.to_bits() & MAGNITUDE);
    let z = a * a;
    let p = f32::from_bits(0xba26_950e);
    let p = p.mul_add(z, f32::from_bits(0x3b42_f62d));
    let p = p.mul_add(z, f32::from_bits(0xbc0c_e984));
    let p = p.mul_add(z, f32::from_bits(0x3cb2_a227));
    let p = p.mul_add(z, f32::from_bits(0xbd5d_0504));
    let p = p.mul_add(z, f32::from_bits(0x3e08_8865));
    let p = p.mul_add(z, f32::from_bits(0xbeaa_aaaa));
    let near = a.mul_add(z * p, a);
    // From 9.02 on the result rounds to 1.
    let clamped = if a > 10.0 { 10.0 } else { a };
    let far = 1.0 - 2.0 / (exp(clamped + clamped) + 1.0);
    with_sign_of(if a < 0.75 { near } else { far }, x)
}

/// The error function `erf(x)`: -1 and 1 at the ends, -0 of -0.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = f32::from_bits(x.to_bits() & MAGNITUDE);
    let z = a * a;
    let p = f32::from_bits(0x38a5_7263);
    let p = p.mul_add(z, f32::from_bits(0xba52_42f4));
    let p = p.mul_add(z, f32::from_bits(0x3baa_0cfa));
    let p = p.mul_add(z, f32::from_bits(0xbcdb_fdda));
    let p = p.mul_add(z, f32::from_bits(0x3de7_1690));
    let p = p.mul_add(z, f32::from_bits(0xbec0_939f));
    let p = p.mul_add(z, f32::from_bits(0x3e03_75d4));
    let near = a.mul_add(p, a);
    // From 3.92 on the result rounds to 1.
    let clamped = if a > 4.0 { 4.0 } else { a };
    let q = f32::from_bits(0xb943_6f06);
    let q = q.mul_add(clamped, f32::from_bits(0x3b41_2da5));
    let q = q.mul_add(clamped, f32::from_bits(0xbcb2_e5cf));
    let q = q.mul_add(clamped, f32::from_bits(0x3dd3_29ab));
    let q = q.mul_add(clamped, f32::from_bits(0x3f23_5d74));
    let q = q.mul_add(clamped, f32::from_bits(0x3f90_4476));
    let q = q.mul_add(clamped, f32::from_bits(0x39b3_0d0b));
    let far = 1.0 - exp(-q);
    with_sign_of(if a < 1.0 { near } else { far }, x)
}

/// The integer that `n` is; 0 for NaN, as on every device.
#[inline(always)]
fn to_int(n: f32) -> i32 {
    // In range after the clamp; the low bits of n + ROUNDER hold the integer, without a
    // conversion whose out-of-range result differs between devices.
    let bits = (n + ROUNDER).to_bits() as i32;
    let int = bits - ROUNDER.to_bits() as i32;
    if n.is_nan() { 0 } else { int }
}

/// The smallest integer not below `x`, for scores: clamped to a range in which differences of two
/// fit, 0 for NaN.
#[inline(always)]
pub fn ceil_to_int(x: f32) -> i32 {
    const LIMIT: f32 = 1_048_576.0;
    let clamped = if x < -LIMIT { -LIMIT } else { x };
    let clamped = if clamped > LIMIT { LIMIT } else { clamped };
    let nearest = (clamped + ROUNDER) - ROUNDER;
    to_int(nearest) + i32::from(nearest < clamped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance from `got` to the f64 value, in units of the last place of an f32 near it.
    fn ulps(got: f32, exact: f64) -> f64 {
        let near = exact as f32;
        if got.to_bits() == near.to_bits() {
            return 0.0;
        }
        let exponent = (near.abs().to_bits() >> 23).max(1) as i32 - 127 - 23;
        (f64::from(got) - exact).abs() / pow2_f64(exponent)
    }

    /// Every 1,009th float; tests/transcendental.rs tests many more.
    fn samples() -> impl Iterator<Item = f32> {
        (0..=u32::MAX).step_by(1_009).map(f32::from_bits)
    }

    #[test]
    fn errors_against_f64_stay_below_two_ulps() {
        let mut worst = [0.0f64; 4];
        for x in samples().filter(|x| x.is_finite()) {
            let wide = f64::from(x);
            if (-149.0..128.0).contains(&x) {
                worst[0] = worst[0].max(ulps(exp2(x), wide.exp2()));
            }
            if (-103.0..88.7).contains(&x) {
                worst[1] = worst[1].max(ulps(exp(x), wide.exp()));
            }
            if x > 0.0 {
                worst[2] = worst[2].max(ulps(ln(x), wide.ln()));
            }
            worst[3] = worst[3].max(ulps(tanh(x), wide.tanh()));
        }
        println!("worst errors in ulp of exp2, exp, ln, tanh: {worst:?}");
        assert!(worst.iter().all(|&error| error <= 2.0), "{worst:?}");
    }

    #[test]
    fn the_edges_are_those_of_ieee() {
        assert_eq!(exp2(-151.0), 0.0);
        assert_eq!(exp2(128.0), f32::INFINITY);
        assert_eq!(exp2(f32::NEG_INFINITY), 0.0);
        assert!(exp2(f32::NAN).is_nan() && exp(f32::NAN).is_nan() && ln(f32::NAN).is_nan());
        assert_eq!(exp2(-149.0), f32::from_bits(1));
        assert_eq!(
            (exp(0.0), exp(200.0), exp(-200.0)),
            (1.0, f32::INFINITY, 0.0)
        );
        assert_eq!(
            (ln(1.0), ln(0.0), ln(f32::INFINITY)),
            (0.0, f32::NEG_INFINITY, f32::INFINITY)
        );
        for function in [tanh, erf] {
            assert_eq!(function(-0.0).to_bits(), (-0.0f32).to_bits());
            assert_eq!((function(f32::INFINITY), function(f32::MIN)), (1.0, -1.0));
            assert!(function(f32::NAN).is_nan());
        }
        assert_eq!(tanh(f32::from_bits(1)), f32::from_bits(1));
        assert_eq!(
            (ceil_to_int(0.25), ceil_to_int(-0.25), ceil_to_int(3.0)),
            (1, 0, 3)
        );
    }
}
