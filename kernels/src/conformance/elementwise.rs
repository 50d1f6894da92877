//! Sums and scaled sums, biases with their gradients, and the canonical form before hashing.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::reference::tree::Atoms;
use crate::{Device, KernelError, Tensor};

pub(super) fn cases() -> Vec<OperationCase> {
    let mut cases = vec![
        OperationCase::new("elementwise 57x33", elementwise),
        OperationCase::new("canonicalise 8 tensors", canonicalise),
    ];
    for (sequences, len) in [(1, 1), (2, 300), (1, 513)] {
        cases.push(OperationCase::new(
            format!("bias gradient {sequences}x{len}"),
            move |device, input| bias_gradient(device, input, sequences, len),
        ));
    }
    cases
}

fn elementwise(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    let place = |stream, shape: &[usize]| device.place(input.tensor(stream, shape)?);
    let (mut a, b) = (place(40, &[57, 33])?, place(41, &[57, 33])?);
    let bias = place(42, &[33])?;
    let before = a.clone();
    device.add_assign(&mut a, &b)?;
    let sum = a.clone();
    device.scaled_add_assign(&mut a, 0.3, &b)?;
    let scaled = device.scaled(&a, -1.7)?;
    device.add_bias(&mut a, &bias)?;
    let by_element = device.products(&a, &b)?;
    let by_column = device.scaled_columns(&a, &bias)?;
    let rows = a.rows(5, 9);
    device.put_rows(&mut a, 31, &rows)?;
    values([before, sum, scaled, by_element, by_column, rows, a])
}

fn bias_gradient(
    device: &Device,
    input: &CaseInput,
    sequences: usize,
    len: usize,
) -> Result<Outputs, KernelError> {
    let dy = device.place(input.tensor(5, &[sequences * len, 56])?)?;
    values([device.bias_gradient(&dy, &Atoms::new(sequences, len))?])
}

/// Negative zeros become +0; the first NaN or infinity is named, with its tensor.
fn canonicalise(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    let mut tensors = (0..8)
        .map(|i| device.place(input.tensor(43 + i, &[100 + 7 * i as usize])?))
        .collect::<Result<Vec<_>, _>>()?;
    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let mut elements = input.numbers(60, 90);
    elements[17..20].copy_from_slice(&bad);
    let broken = device.place(Tensor::new(&[90], elements)?)?;
    let check = |tensors: &mut [Tensor]| {
        let mut named: Vec<_> = tensors.iter_mut().map(|x| ("x", x)).collect();
        match device.canonicalise(&mut named) {
            Ok(()) => Ok(-1.0),
            Err(KernelError::NotFinite { index, .. }) => Ok(index as f32),
            Err(error) => Err(error),
        }
    };
    let fine = check(&mut tensors)?;
    tensors.insert(3, broken);
    let found = check(&mut tensors)?;
    tensors.remove(3);
    let mut outputs = values(tensors)?;
    outputs.push(vec![fine, found]);
    Ok(outputs)
}
