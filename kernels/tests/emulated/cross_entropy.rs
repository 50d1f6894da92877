//! Losses, and the gradients of the head.

use concord_kernels::coded::Precision;

use crate::gpus::{devices, inputs, placed, same_bits, values};

#[test]
fn losses_of_long_rows_and_of_rows_that_are_no_numbers() {
    for vocab in [1, 2, 511, 513, 4_097, 70_001] {
        for draw in inputs() {
            same_bits(&format!("cross entropy over {vocab}"), |device| {
                let mut p = device.place(draw.tensor(1, &[3, vocab])?)?;
                let last = vocab as u32 - 1;
                let targets = device.targets(&[Some(last), None, Some(0)])?;
                let losses = device.cross_entropy(&mut p, &targets)?;
                values([p, losses])
            });
        }
    }
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = [
        [nan; 5],
        [1.0, nan, 2.0, 0.0, -1.0],
        [-inf; 5],
        [inf, 0.0, inf, 1.0, -inf],
        [-0.0, 0.0, -0.0, -0.0, -0.0],
    ];
    same_bits("cross entropy of no numbers", |device| {
        let mut p = placed(device, rows.as_flattened(), &[5, 5])?;
        let targets = device.targets(&[Some(2); 5])?;
        let losses = device.cross_entropy(&mut p, &targets)?;
        values([p, losses])
    });
}

#[test]
fn targets_from_outside_give_nan() {
    for device in devices() {
        let mut logits = placed(&device, &[1.0; 12], &[3, 4]).unwrap();
        let targets = device.ids(&[3, 4, 5_000]).unwrap();
        let losses = device.cross_entropy(&mut logits, &targets).unwrap();
        let losses = losses.into_values().unwrap();
        assert!(losses[0].is_finite() && losses[1..].iter().all(|v| v.is_nan()));
    }
}

/// A weight with a row of zeros and one that holds an infinity among its codes.
#[test]
fn decoded_rows_are_taken_off_as_the_reference_does() {
    for draw in inputs() {
        same_bits("head_dx", |device| {
            let mut w = draw.numbers(1, 6 * 40);
            w[40..80].fill(-0.0);
            w[80] = f32::INFINITY;
            let w = placed(device, &w, &[6, 40])?;
            let w = device.code(&w, 40, Precision::I16)?;
            let p = device.place(draw.tensor(2, &[7, 6])?)?;
            let targets = [Some(0), Some(1), Some(2), None, Some(0), Some(5), Some(3)];
            let targets = device.targets(&targets)?;
            values([device.head_dx(&p, &targets, &w, Precision::I16, None)?])
        });
    }
}
