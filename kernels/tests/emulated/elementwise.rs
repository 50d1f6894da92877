//! Elementwise operations, biases, and the canonical form before a tensor is hashed.

use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::ops::Atoms;

use crate::gpus::{devices, inputs, placed, same_bits, values};

#[test]
fn elementwise_operations_on_hostile_numbers() {
    for draw in inputs() {
        // The last has more rows than a grid has blocks.
        for (rows, cols) in [(1, 1), (3, 255), (2, 257), (66_000, 2)] {
            same_bits(&format!("elementwise {rows}x{cols}"), |device| {
                let place = |stream| device.place(draw.tensor(stream, &[rows, cols])?);
                let (a, b) = (place(1)?, place(2)?);
                let bias = device.place(draw.tensor(4, &[cols])?)?;
                let scaled = device.scaled(&a, 1e-20)?;
                let by_element = device.products(&a, &b)?;
                let by_column = device.scaled_columns(&a, &bias)?;
                let (mut sum, mut fused) = (a.clone(), a.clone());
                device.add_assign(&mut sum, &b)?;
                device.scaled_add_assign(&mut fused, -0.7, &b)?;
                device.add_bias(&mut sum, &bias)?;
                values([scaled, by_element, by_column, sum, fused, a])
            });
        }
    }
}

#[test]
fn sums_over_any_number_of_atoms_follow_the_tree() {
    for (sequences, len) in [
        (1, 1),
        (1, 257),
        (1, 1_030),
        (3, 512),
        (7, 3),
        (9, 300),
        (16, 1),
    ] {
        let draw = CaseInput::new(sequences as u64, InputKind::Wide);
        same_bits(&format!("bias gradient {sequences}x{len}"), |device| {
            let dy = device.place(draw.tensor(1, &[sequences * len, 67])?)?;
            values([device.bias_gradient(&dy, &Atoms::new(sequences, len))?])
        });
    }
}

#[test]
fn the_first_number_that_is_none_is_named() {
    for device in devices() {
        for (len, bad) in [(1, 0), (300, 299), (70_000, 65_537), (70_000, 3)] {
            let mut data = vec![-0.0f32; len];
            data[bad..].fill(f32::NAN);
            data[bad] = f32::NEG_INFINITY;
            let mut fine = placed(&device, &[-0.0, 1.0, -0.0], &[3]).unwrap();
            let mut broken = placed(&device, &data, &[len]).unwrap();
            let mut other = broken.clone();
            let mut list = [
                ("fine", &mut fine),
                ("broken", &mut broken),
                ("other", &mut other),
            ];
            let error = device.canonicalise(&mut list).unwrap_err();
            let expected = format!("broken: element {bad} is -inf: not a finite number");
            assert_eq!(error.to_string(), expected);
            let fine = fine.into_values().unwrap();
            let fine: Vec<u32> = fine.iter().map(|v| v.to_bits()).collect();
            assert_eq!(fine, [0, 0x3f80_0000, 0]);
        }
        assert!(device.canonicalise(&mut []).is_ok());
    }
}
