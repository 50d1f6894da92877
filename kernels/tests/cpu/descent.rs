//! What tests of optimizers have in common.

use concord_kernels::Tensor;

pub const LEN: usize = 70_001;
pub const STEPS: usize = 5;

/// Numbers between -1 and 1, other ones for each stream.
pub fn numbers(stream: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + stream * 104_729) % 2003) as f32 / 1001.5 - 1.0;
    (0..LEN).map(number).collect()
}

pub fn near(found: &Tensor, expected: &[f64], what: &str) {
    let found = found.values().unwrap();
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error < 2e-6, "{what} {i}: {found} and {expected}");
    }
}
