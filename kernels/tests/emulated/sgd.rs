//! Steps of gradient descent.

use concord_kernels::ops::SgdStep;

use crate::gpus::{inputs, same_bits, values};

#[test]
fn sgd_on_hostile_numbers() {
    for draw in inputs() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let step = SgdStep {
                gradient_scale: 0.125,
                learning_rate: 3e-4,
                momentum,
                nesterov,
                weight_decay: 0.1,
            };
            for len in [0, 1, 255, 257, 70_001] {
                same_bits(&format!("sgd {len} {momentum} {nesterov}"), |device| {
                    let place = |stream, len| device.place(draw.tensor(stream, &[len])?);
                    let kept = if momentum == 0.0 { 0 } else { len };
                    let (gradient, mut value) = (place(1, len)?, place(2, len)?);
                    let mut m = place(3, kept)?;
                    device.sgd(&step, &gradient, &mut value, &mut m)?;
                    values([value, m])
                });
            }
        }
    }
}
