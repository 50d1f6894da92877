//! SwiGLU on hostile numbers.

use crate::gpus::{inputs, same_bits, values};

#[test]
fn activations_of_hostile_numbers() {
    for draw in inputs() {
        // The last has more rows than a grid has blocks.
        for (rows, cols) in [(1, 1), (3, 255), (2, 257), (66_000, 2)] {
            same_bits(&format!("swiglu {rows}x{cols}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[rows, cols])?);
                let (a, b, c) = (place(1)?, place(2)?, place(3)?);
                let y = device.swiglu(&a, &b)?;
                let (dg, du) = device.swiglu_backward(&c, &a, &b)?;
                values([y, dg, du, a])
            });
        }
    }
}
