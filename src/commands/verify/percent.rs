//! Probabilities for people.

/// A percentage with two decimals, rounded down, so that 100 % is shown only for a share within
/// 1e-8 of certainty. That 1e-8 undoes rounding errors.
pub fn percent_below(share: f64) -> f64 {
    (share * 1e4 + 1e-4).floor() / 1e2
}
