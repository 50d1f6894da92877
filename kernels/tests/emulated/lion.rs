//! Steps of Lion.

use concord_kernels::ops::LionStep;

use crate::gpus::{inputs, same_bits, values};

#[test]
fn lion_on_hostile_numbers() {
    let step = LionStep {
        gradient_scale: 0.125,
        learning_rate: 3e-4,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.1,
    };
    for draw in inputs() {
        for len in [0, 1, 255, 257, 70_001] {
            same_bits(&format!("lion {len}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[len])?);
                let (gradient, mut value, mut m) = (place(1)?, place(2)?, place(3)?);
                device.lion(&step, &gradient, &mut value, &mut m)?;
                values([value, m])
            });
        }
    }
}
