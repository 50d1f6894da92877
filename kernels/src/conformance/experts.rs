//! Rows of experts: gathered, added to their tokens, and back.

use super::{CaseInput, OperationCase, Outputs};
use crate::coded::Precision;
use crate::ops::{RouterKind, Routing};
use crate::{Device, KernelError};

/// Tokens, experts, experts of a token, columns.
const SHAPES: [[usize; 4]; 4] = [
    [70, 8, 2, 24],
    [33, 5, 5, 1],
    [1, 40, 8, 300],
    [300, 3, 1, 33],
];

pub(super) fn cases() -> Vec<OperationCase> {
    let mut cases = Vec::new();
    for shape in SHAPES {
        let [rows, experts, chosen, cols] = shape;
        let name = format!("experts {rows}x{cols}, {chosen} of {experts}");
        let run = move |device: &Device, input: &CaseInput| rows_of_experts(device, input, shape);
        cases.push(OperationCase::new(name, run));
    }
    cases
}

fn rows_of_experts(
    device: &Device,
    input: &CaseInput,
    [tokens, experts, chosen, cols]: [usize; 4],
) -> Result<Outputs, KernelError> {
    let place = |stream, shape: &[usize]| device.place(input.tensor(stream, shape)?);
    let routing = Routing {
        kind: RouterKind::Sigmoid,
        chosen,
        normalised: false,
        factor: 1.0,
    };
    let routes = device.route(&place(84, &[tokens, experts])?, None, &routing)?;
    let rows = device.expert_rows(&routes, experts)?;
    let x = device.code(&place(85, &[tokens, cols])?, cols, Precision::I16)?;
    let gathered = device.gather(&x, &rows.tokens)?;
    let (codes, exps) = (gathered.q.values()?, gathered.exp.values()?);
    let codes = codes.iter().map(|&q| f32::from(q)).collect();
    let exps = exps.iter().map(|&exp| exp as f32).collect();

    let results = place(86, &[tokens * chosen, cols])?;
    let weights = place(87, &[tokens, chosen])?;
    let dy = place(88, &[tokens, cols])?;
    let (mut weighed, mut plain) = (place(89, &[tokens, cols])?, place(89, &[tokens, cols])?);
    device.combine(&mut weighed, &results, &rows.slots, Some(&weights))?;
    device.combine(&mut plain, &results, &rows.slots, None)?;
    let (d_rows, d_weights) = device.combine_backward(&dy, &results, &rows.slots, &weights)?;
    let mut outputs = vec![codes, exps];
    for tensor in [weighed, plain, d_rows, d_weights] {
        outputs.push(tensor.into_values()?);
    }
    Ok(outputs)
}
