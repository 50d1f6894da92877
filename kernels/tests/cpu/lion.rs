//! Lion, against its paper in f64, over several steps.

use concord_kernels::Tensor;
use concord_kernels::ops::LionStep;

use crate::hosts;

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

#[test]
fn lion_steps_along_the_sign() {
    let step = LionStep {
        gradient_scale: 0.5,
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.1,
    };
    for device in hosts() {
        let mut value = Tensor::new(&[LEN], numbers(0)).unwrap();
        let mut momentum = Tensor::zeros(&[LEN]);
        let mut w: Vec<f64> = numbers(0).iter().map(|&v| f64::from(v)).collect();
        let mut m = vec![0.0f64; LEN];
        for s in 1..=STEPS {
            let gradient = Tensor::new(&[LEN], numbers(s)).unwrap();
            device
                .lion(&step, &gradient, &mut value, &mut momentum)
                .unwrap();
            for (i, g) in numbers(s).iter().enumerate() {
                let g = 0.5 * f64::from(*g);
                let mixed = 0.9 * m[i] + 0.1 * g;
                // Where the two nearly cancel, the sign is that of a rounding.
                let sign = if mixed.abs() < 1e-6 {
                    (w[i] * (1.0 - 0.001) - f64::from(value.values().unwrap()[i])) / 0.01
                } else {
                    mixed.signum()
                };
                w[i] = w[i] * (1.0 - 0.01 * 0.1) - 0.01 * sign;
                m[i] = 0.99 * m[i] + 0.01 * g;
            }
        }
        near(&value, &w, "value");
        near(&momentum, &m, "momentum");
    }
}
