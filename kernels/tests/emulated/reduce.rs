//! Sums at the edges of segments.

use concord_kernels::Device;
use concord_kernels::conformance::{CaseInput, InputKind};

use crate::gpus::{gpus, inputs, placed, same_bits};

#[test]
fn sums_of_many_tensors_at_the_edge_of_a_segment() {
    let lengths = [0, 1, 32, 4_095, 4_096, 4_097, 8_192, 8_193, 140_001, 5];
    for draw in inputs() {
        same_bits("sums", |device| {
            let tensors = lengths
                .iter()
                .map(|&len| device.place(draw.tensor(len as u64, &[len])?))
                .collect::<Result<Vec<_>, _>>()?;
            let sums = tensors.iter().map(|x| device.sum(x));
            let sums = sums.collect::<Result<Vec<_>, _>>()?;
            let squares = device.sum_squares(&tensors.iter().collect::<Vec<_>>())?;
            let none = device.sum_squares(&[])?;
            Ok(vec![sums, squares, none])
        });
    }
}

/// More segments than the 2,048 that the ordered sum stages at a time.
#[test]
fn a_sum_of_more_segments_than_are_staged() {
    let draw = CaseInput::new(1, InputKind::Ordinary);
    let data = draw.numbers(1, 2_049 * 4_096 + 1);
    // The GPU whose last thread goes first: nothing may be staged too early.
    let [expected, got] = [Device::Reference, Device::Cuda(gpus()[1].clone())].map(|device| {
        let x = placed(&device, &data, &[data.len()]).unwrap();
        device.sum(&x).unwrap()
    });
    assert_eq!(got.to_bits(), expected.to_bits(), "{got} not {expected}");
}
