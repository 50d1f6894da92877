//! Exponents of coded rows, and the powers of two that elements are multiplied by.

use crate::coded::Precision;
use crate::math::pow2_f64;
use crate::reference::code::EMPTY;

/// The powers of two that elements are multiplied by before they are coded.
pub(super) struct Folds {
    /// Exact for every exponent that a row can have.
    pub(super) wide: Vec<f64>,
    /// The same in f32, where all of them are normal there.
    pub(super) narrow: Option<Vec<f32>>,
}

impl Folds {
    pub(super) fn new(exps: &[i32]) -> Self {
        let is_narrow = exps
            .iter()
            .all(|&e| e == EMPTY || (-126..=127).contains(&e));
        Self {
            wide: exps.iter().map(|&e| pow2_f64(e)).collect(),
            narrow: is_narrow.then(|| exps.iter().map(|&e| pow2_f64(e) as f32).collect()),
        }
    }
}

/// The exponent that lets `largest` just fit; [`EMPTY`] for 0. The steps are the reference's.
pub(super) fn exponent(largest: f64, precision: Precision) -> i32 {
    if largest == 0.0 {
        return EMPTY;
    }
    let exponent = (largest.to_bits() >> 52) as i32 - 1023;
    let limit = precision.limit();
    let exp = exponent - limit.ilog2() as i32;
    let fits = (largest * pow2_f64(-exp)).round_ties_even() <= f64::from(limit);
    if fits { exp } else { exp + 1 }
}

/// `2^-exp` where f32 holds it as a normal number.
#[inline(always)]
pub(super) fn plain_scale(exp: i32) -> Option<f32> {
    (-127..=126)
        .contains(&exp)
        .then(|| f32::from_bits(((127 - exp) as u32) << 23))
}

/// Whether a row of folded f32 products, the largest of these bits, has the codes of the exact
/// products: none overflowed, and what underflowed is too small beside the largest to matter.
#[inline(always)]
pub(super) fn is_ordinary(largest: u32) -> bool {
    const SMALLEST: u32 = (127 - 100) << 23;
    (SMALLEST..f32::INFINITY.to_bits()).contains(&largest)
}

/// Codes values that are exact in f64.
#[inline(always)]
pub(super) fn code_in_f64(values: impl Iterator<Item = f64>, exp: i32, q: &mut [i16]) {
    const ONE_AND_A_HALF_2_52: f64 = 6_755_399_441_055_744.0;
    let scale = pow2_f64(-exp);
    if scale.is_nan() {
        // The reference casts the NaN products of such a row to 0.
        q.fill(0);
        return;
    }
    values
        .zip(q)
        .for_each(|(v, q)| *q = (v * scale + ONE_AND_A_HALF_2_52).to_bits() as i16);
}
