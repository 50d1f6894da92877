//! Lion and gradient descent, against their papers in f64, over several steps.

use concord_kernels::Tensor;
use concord_kernels::ops::{LionStep, SgdStep};

use crate::hosts;

const LEN: usize = 70_001;
const STEPS: usize = 5;

/// Numbers between -1 and 1, other ones for each stream.
fn numbers(stream: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + stream * 104_729) % 2003) as f32 / 1001.5 - 1.0;
    (0..LEN).map(number).collect()
}

fn near(found: &Tensor, expected: &[f64], what: &str) {
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

#[test]
fn descent_without_and_with_momentum() {
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let step = SgdStep {
            gradient_scale: 0.5,
            learning_rate: 0.01,
            momentum,
            nesterov,
            weight_decay: 0.1,
        };
        for device in hosts() {
            let mut value = Tensor::new(&[LEN], numbers(0)).unwrap();
            let mut kept = Tensor::zeros(&[if momentum == 0.0 { 0 } else { LEN }]);
            let mut w: Vec<f64> = numbers(0).iter().map(|&v| f64::from(v)).collect();
            let mut m = vec![0.0f64; LEN];
            let mu = f64::from(momentum);
            for s in 1..=STEPS {
                let gradient = Tensor::new(&[LEN], numbers(s)).unwrap();
                device.sgd(&step, &gradient, &mut value, &mut kept).unwrap();
                for (i, g) in numbers(s).iter().enumerate() {
                    let g = 0.5 * f64::from(*g) + f64::from(0.1f32) * w[i];
                    m[i] = mu * m[i] + g;
                    let direction = if nesterov { g + mu * m[i] } else { m[i] };
                    w[i] -= f64::from(0.01f32) * direction;
                }
            }
            near(&value, &w, "value");
            if momentum != 0.0 {
                near(&kept, &m, "momentum");
            }
        }
    }
}
