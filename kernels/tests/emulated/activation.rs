//! Activations on hostile numbers.

use concord_kernels::ops::Activation;

use crate::gpus::{inputs, same_bits, values};

#[test]
fn activations_of_hostile_numbers() {
    let clamped = Activation::ClampedSwiglu {
        alpha: 1.702,
        limit: 7.0,
    };
    for draw in inputs() {
        // The last has more rows than a grid has blocks.
        for (rows, cols) in [(1, 1), (3, 255), (2, 257), (66_000, 2)] {
            for act in [Activation::Silu, Activation::Gelu, clamped] {
                same_bits(&format!("{act:?} {rows}x{cols}"), |device| {
                    let place = |stream| device.place(draw.tensor(stream, &[rows, cols])?);
                    let (a, b, c) = (place(1)?, place(2)?, place(3)?);
                    let y = device.gated(&a, &b, act)?;
                    let (dg, du) = device.gated_backward(&c, &a, &b, act)?;
                    values([y, dg, du, a])
                });
            }
        }
    }
}
