//! Steps of the optimizer.

use concord_kernels::ops::AdamStep;

use crate::gpus::{inputs, same_bits, values};

#[test]
fn adamw_on_hostile_numbers() {
    let step = AdamStep {
        gradient_scale: 0.125,
        learning_rate: 3e-4,
        beta1: 0.9,
        beta2: 0.95,
        bias1: 0.19,
        bias2: 0.0975,
        epsilon: 1e-8,
        weight_decay: 0.1,
    };
    for draw in inputs() {
        for len in [0, 1, 255, 257, 70_001] {
            same_bits(&format!("adamw {len}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[len])?);
                let (gradient, mut value, mut m) = (place(1)?, place(2)?, place(3)?);
                // Negative second moments: their root is no number.
                let mut v = place(4)?;
                device.adamw(&step, &gradient, &mut value, &mut m, &mut v)?;
                values([value, m, v])
            });
        }
    }
}
