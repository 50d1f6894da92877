//! Norms that subtract the mean, at the edges of warps and segments.

use concord_kernels::ops::Atoms;

use crate::gpus::{inputs, same_bits, values};

#[test]
fn norms_at_the_edge_of_a_warp_and_of_a_segment() {
    for cols in [31, 32, 33, 1_024, 1_025, 4_097, 33_000] {
        for draw in inputs() {
            let sequences = if cols < 100 { 3 } else { 1 };
            let tokens = if cols < 100 { 260 } else { 2 };
            // Two rows a token, as with a norm of each head.
            let rows = sequences * tokens * 2;
            same_bits(&format!("layernorm {rows}x{cols}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[rows, cols])?);
                let (x, dy) = (place(1)?, place(2)?);
                let w = device.place(draw.tensor(3, &[cols])?)?;
                let b = device.place(draw.tensor(4, &[cols])?)?;
                let (y, mean, inverse) = device.layernorm(&x, &w, Some(&b), 1e-6)?;
                let dx = device.layernorm_dx(&dy, &x, &w, &mean, &inverse)?;
                let atoms = Atoms::new(sequences, tokens);
                let dw = device.layernorm_dw(&dy, &x, &mean, &inverse, cols, &atoms)?;
                let db = device.bias_gradient(&dy, &atoms)?;
                values([y, mean, inverse, dx, dw, db])
            });
        }
    }
}
