//! Attention sinks (gpt-oss): NUMERICS.md, section 5.
//!
//! A sink is a learned logit of a head. It is in the softmax of every query, after all keys, and
//! has no value, so it only makes the weights of the keys smaller.

use super::rescale;
use crate::math::{LOG2_E, ceil_to_int, exp2};

/// A finished softmax: what is left to do is `out = numerator * keep / sum`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SoftmaxEnd {
    /// The integer maximum over keys and sink.
    pub max: i32,
    /// The denominator at that maximum.
    pub sum: f32,
    /// The numerator of the keys is multiplied by it, a power of two or 0.
    pub keep: f32,
}

impl SoftmaxEnd {
    /// Finishes the softmax `(max, sum)` over the keys of a query with the sink of its head.
    pub fn new((max, sum): (Option<i32>, f32), sink: Option<f32>) -> Self {
        let Some(sink) = sink else {
            let (max, keep) = (max.unwrap_or(0), 1.0);
            return Self { max, sum, keep };
        };
        let score = sink * LOG2_E;
        let own = ceil_to_int(score);
        let new = max.map_or(own, |max| max.max(own));
        let keep = max.map_or(1.0, |max| rescale(max, new));
        Self {
            max: new,
            sum: sum * keep + exp2(score - new as f32),
            keep,
        }
    }
}

/// Gradient of the sink by one query: `-(p * delta)`, where p is the sink's share of the softmax.
/// `max` and `inverse` are the maximum and one over the denominator of the query.
pub fn sink_gradient(sink: f32, max: i32, inverse: f32, delta: f32) -> f32 {
    let p = exp2(sink * LOG2_E - max as f32) * inverse;
    -(p * delta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_one_more_key_without_a_value() {
        let end = |sink| SoftmaxEnd::new((Some(3), 0.75), Some(sink));
        let plain = SoftmaxEnd::new((Some(3), 0.75), None);
        assert_eq!((plain.max, plain.sum, plain.keep), (3, 0.75, 1.0));
        // Below the keys, above them, and far from them on either side.
        let low = end(0.0);
        assert_eq!((low.max, low.sum, low.keep), (3, 0.875, 1.0));
        let high = end(3.5);
        assert_eq!((high.max, high.keep), (6, 0.125));
        assert!((high.sum - (0.75 / 8.0 + exp2(3.5 * LOG2_E) / 64.0)).abs() < 1e-6);
        assert_eq!(end(-1e9), plain);
        assert_eq!(end(100.0).keep, 0.0);
        assert!(end(f32::NAN).sum.is_nan());
        let alone = SoftmaxEnd::new((None, 0.0), Some(0.0));
        assert_eq!((alone.max, alone.sum), (0, 1.0));
    }
}
