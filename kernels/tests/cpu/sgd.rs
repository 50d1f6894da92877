//! Gradient descent, against its paper in f64, over several steps.

use concord_kernels::Tensor;
use concord_kernels::ops::SgdStep;

use crate::hosts;
use crate::lion::{LEN, STEPS, near, numbers};

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
