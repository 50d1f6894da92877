//! What a count says about a probability.

/// The interval of Clopper and Pearson: probabilities of which neither so few nor so many `hits`
/// in `trials` have less than half of what `confidence` leaves. It covers the true one with
/// `confidence` or more, whatever that is.
///
/// ```
/// use concord_simulator::interval::clopper_pearson;
///
/// let (low, high) = clopper_pearson(0, 100, 0.99);
/// assert_eq!(low, 0.0);
/// assert!((high - (1.0 - 0.005_f64.powf(0.01))).abs() < 1e-9);
/// ```
pub fn clopper_pearson(hits: u64, trials: u64, confidence: f64) -> (f64, f64) {
    let tail = (1.0 - confidence) / 2.0;
    let logs = LogFactorials::up_to(trials);
    let low = match hits {
        0 => 0.0,
        _ => bisect(|p| 1.0 - logs.at_most(hits - 1, trials, p) > tail),
    };
    let high = match hits == trials {
        true => 1.0,
        false => bisect(|p| logs.at_most(hits, trials, p) < tail),
    };
    (low, high)
}

/// The least probability of which `is_above` holds; it holds for all above.
fn bisect(is_above: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        match is_above(middle) {
            true => high = middle,
            false => low = middle,
        }
    }
    high
}

/// Logarithms of factorials.
struct LogFactorials(Vec<f64>);

impl LogFactorials {
    fn up_to(count: u64) -> Self {
        let mut sum = 0.0;
        let next = (1..=count).map(|number| {
            sum += (number as f64).ln();
            sum
        });
        Self([0.0].into_iter().chain(next).collect())
    }

    /// The probability of at most `hits` in `trials`.
    fn at_most(&self, hits: u64, trials: u64, p: f64) -> f64 {
        if p <= 0.0 || p >= 1.0 {
            return f64::from(u8::from(p <= 0.0 || hits >= trials));
        }
        let (yes, no) = (p.ln(), (-p).ln_1p());
        let of = |count: u64| {
            let other = trials - count;
            let ways = self.0[trials as usize] - self.0[count as usize] - self.0[other as usize];
            (ways + count as f64 * yes + other as f64 * no).exp()
        };
        (0..=hits).map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against published values, and the interval of a count and of its complement.
    #[test]
    fn intervals_are_those_of_the_literature() {
        let near = |(a, b): (f64, f64), (c, d): (f64, f64)| {
            assert!((a - c).abs() < 5e-5 && (b - d).abs() < 5e-5, "{a} {b}");
        };
        near(clopper_pearson(1, 10, 0.95), (0.0025, 0.4450));
        near(clopper_pearson(5, 10, 0.95), (0.1871, 0.8129));
        let (low, high) = clopper_pearson(300, 1_000, 0.99);
        let (other_low, other_high) = clopper_pearson(700, 1_000, 0.99);
        near((low, high), (1.0 - other_high, 1.0 - other_low));
        assert!(low > 0.26 && low < 0.27 && high > 0.33 && high < 0.34);
        assert_eq!(clopper_pearson(7, 7, 0.99).1, 1.0);
    }
}
