//! The soft cap of scores (Gemma 2): NUMERICS.md, section 5.

use crate::math::tanh;

/// A cap on scores in base 2: no magnitude comes out above `cap * log2(e)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreCap {
    /// `ln(2) / cap`: from base 2 to what tanh takes.
    pub inward: f32,
    /// `cap * log2(e)`.
    pub outward: f32,
}

impl ScoreCap {
    /// The factors of a cap on scores in base e, each rounded once.
    pub fn new(cap: f32) -> Self {
        Self {
            inward: (std::f64::consts::LN_2 / f64::from(cap)) as f32,
            outward: (f64::from(cap) * std::f64::consts::LOG2_E) as f32,
        }
    }

    /// The score under the cap.
    #[inline(always)]
    pub fn of(self, score: f32) -> f32 {
        self.outward * tanh(score * self.inward)
    }

    /// The score under the cap, and what the gradient of the score is multiplied by.
    #[inline(always)]
    pub fn with_slope(self, score: f32) -> (f32, f32) {
        let bent = tanh(score * self.inward);
        (self.outward * bent, (-bent).mul_add(bent, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_scores_pass_and_large_ones_stop_at_the_cap() {
        let cap = ScoreCap::new(50.0);
        let most = 50.0 * std::f32::consts::LOG2_E;
        assert!((cap.of(0.125) - 0.125).abs() < 1e-5);
        for score in [1e4, 1e30, f32::INFINITY] {
            assert!((cap.of(score) - most).abs() < 1e-4);
            assert_eq!(cap.of(-score).to_bits(), (-cap.of(score)).to_bits());
            assert_eq!(cap.with_slope(score), (cap.of(score), 0.0));
        }
        assert_eq!(cap.with_slope(0.0), (0.0, 1.0));
        assert!(cap.of(f32::NAN).is_nan());
    }
}
