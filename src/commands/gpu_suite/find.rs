//! The difference that a check found between two devices.

use concord_kernels::conformance::Difference;
use serde::Serialize;

/// The first difference that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Where: which output of the operation, which step of a training.
    pub place: String,
    /// The GPU's result.
    pub got: String,
    /// The expected result.
    pub expected: String,
    /// How many numbers, digests or tokens differ.
    pub count: usize,
}

impl From<Difference> for Mismatch {
    fn from(difference: Difference) -> Self {
        let number = |number: Option<f32>| match number {
            None => "nothing".to_string(),
            Some(number) => format!("{number:e} (bits {:#010x})", number.to_bits()),
        };
        Self {
            place: format!("output {}, element {}", difference.output, difference.index),
            got: number(difference.got),
            expected: number(difference.expected),
            count: difference.count,
        }
    }
}

/// The first difference of two lists; `name` is what their elements are called.
pub fn unlike<T: PartialEq + ToString>(name: &str, got: &[T], expected: &[T]) -> Option<Mismatch> {
    let len = got.len().max(expected.len());
    let differing = |&i: &usize| got.get(i) != expected.get(i);
    let first = (0..len).find(differing)?;
    let text = |list: &[T]| {
        let element = list.get(first);
        element.map_or("nothing".to_string(), ToString::to_string)
    };
    Some(Mismatch {
        place: format!("{name} {first}"),
        got: text(got),
        expected: text(expected),
        count: (0..len).filter(differing).count(),
    })
}

#[cfg(test)]
mod tests {
    use concord_kernels::conformance::difference;

    use super::*;

    #[test]
    fn one_flipped_bit_is_found_and_named() {
        let expected = vec![vec![1.0f32, 2.0], vec![-0.5, 0.0, 3.0]];
        let mut got = expected.clone();
        assert_eq!(difference(&got, &expected), None);
        got[1][0] = f32::from_bits(got[1][0].to_bits() ^ 1);
        let finding = Mismatch::from(difference(&got, &expected).unwrap());
        assert_eq!(finding.place, "output 1, element 0");
        assert_eq!(finding.expected, "-5e-1 (bits 0xbf000000)");
        assert!(
            finding.got.ends_with("(bits 0xbf000001)"),
            "{}",
            finding.got
        );
        assert_eq!(finding.count, 1);
        // The sign of zero counts, and a missing element does.
        got[1][1] = -0.0;
        got[1].pop();
        let finding = Mismatch::from(difference(&got, &expected).unwrap());
        assert_eq!(finding.count, 3);
    }

    #[test]
    fn lists_are_compared_to_the_end() {
        assert_eq!(unlike("token", &[1, 2, 3], &[1, 2, 3]), None);
        let finding = unlike("token", &[1, 9, 3], &[1, 2, 3, 4]).unwrap();
        assert_eq!(finding.place, "token 1");
        assert_eq!(
            (finding.got.as_str(), finding.expected.as_str()),
            ("9", "2")
        );
        assert_eq!(finding.count, 2);
        let finding = unlike("step", &["a"], &["a", "b"]).unwrap();
        assert_eq!(
            (finding.got.as_str(), finding.expected.as_str()),
            ("nothing", "b")
        );
    }
}
