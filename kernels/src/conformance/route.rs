//! The choice of experts, of every kind of router.

use super::{CaseInput, OperationCase, Outputs};
use crate::ops::{RouterKind, Routing};
use crate::{Device, KernelError};

/// Tokens, experts, experts of a token.
const SHAPES: [[usize; 3]; 5] = [
    [70, 8, 2],
    [33, 60, 4],
    [19, 130, 9],
    [5, 33, 33],
    [9, 1, 1],
];

pub(super) fn cases() -> Vec<OperationCase> {
    let mut cases = Vec::new();
    for [rows, experts, chosen] in SHAPES {
        let name = format!("route {rows}x{experts}, {chosen} chosen");
        let run =
            move |device: &Device, input: &CaseInput| route(device, input, [rows, experts], chosen);
        cases.push(OperationCase::new(name, run));
    }
    cases
}

fn route(
    device: &Device,
    input: &CaseInput,
    shape: [usize; 2],
    chosen: usize,
) -> Result<Outputs, KernelError> {
    let logits = device.place(input.tensor(81, &shape)?)?;
    let correction = device.place(input.tensor(82, &shape[1..])?)?;
    let d_weights = device.place(input.tensor(83, &[shape[0], chosen])?)?;
    let mut outputs = Vec::new();
    let kinds = [
        (RouterKind::Softmax, false, 1.0),
        (RouterKind::Softmax, true, 2.5),
        (RouterKind::Sigmoid, false, 2.5),
        (RouterKind::Sigmoid, true, 1.0),
        (RouterKind::SoftmaxOfChosen, false, 1.0),
    ];
    for (kind, normalised, factor) in kinds {
        let routing = Routing {
            kind,
            chosen,
            normalised,
            factor,
        };
        for correction in [None, Some(&correction)] {
            let routes = device.route(&logits, correction, &routing)?;
            let gradient = device.route_backward(&logits, &routes, &d_weights, &routing)?;
            let ids = routes.experts.0.values()?;
            outputs.push(ids.iter().map(|&id| id as f32).collect());
            outputs.push(routes.weights.into_values()?);
            outputs.push(gradient.into_values()?);
        }
    }
    Ok(outputs)
}
