//! Steps of the optimizers beside AdamW.

use concord_kernels::ops::{LionStep, SgdStep};

use crate::gpus::{inputs, same_bits, values};

const LENGTHS: [usize; 5] = [0, 1, 255, 257, 70_001];

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
        for len in LENGTHS {
            same_bits(&format!("lion {len}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[len])?);
                let (gradient, mut value, mut m) = (place(1)?, place(2)?, place(3)?);
                device.lion(&step, &gradient, &mut value, &mut m)?;
                values([value, m])
            });
        }
    }
}

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
            for len in LENGTHS {
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
