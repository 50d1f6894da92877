//! Soft caps on hostile numbers, and targets from outside.

use crate::gpus::{devices, inputs, placed, same_bits, values};

#[test]
fn soft_caps_of_hostile_numbers() {
    for draw in inputs() {
        for (rows, cols) in [(1, 1), (3, 255), (66_000, 2)] {
            for cap in [1e-30, 30.0, 3e38] {
                same_bits(&format!("soft cap {rows}x{cols} at {cap}"), |device| {
                    let place = |stream| device.place(draw.tensor(stream, &[rows, cols])?);
                    let (x, dy) = (place(1)?, place(2)?);
                    let y = device.soft_cap(&x, cap)?;
                    let dx = device.soft_cap_backward(&dy, &y, cap)?;
                    values([y, dx])
                });
            }
        }
    }
}

#[test]
fn slopes_at_targets_from_outside_are_nan() {
    for device in devices() {
        let y = placed(&device, &[0.5; 12], &[3, 4]).unwrap();
        let targets = device.ids(&[3, 4, u32::MAX]).unwrap();
        let slopes = device.soft_cap_targets(&y, &targets, 1.0).unwrap();
        let slopes = slopes.into_values().unwrap();
        assert!(slopes[0] == 0.75 && slopes[1].is_nan() && slopes[2] == 0.0);
    }
}
