//! Activations and gates, and their gradients.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::reference::activation::Activation;
use crate::{Device, KernelError};

const ACTIVATIONS: [Activation; 7] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::ReluSquared,
    Activation::ClampedSwiglu {
        alpha: 1.702,
        limit: 0.7,
    },
];

pub(super) fn cases() -> Vec<OperationCase> {
    let mut cases = vec![OperationCase::new("swiglu 99x173", swiglu)];
    cases.extend(ACTIVATIONS.map(|act| {
        OperationCase::new(format!("activation {act:?}"), move |device, input| {
            activation(device, input, act)
        })
    }));
    cases
}

fn swiglu(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    let place = |stream| device.place(input.tensor(stream, &[99, 173])?);
    let (g, u, dy) = (place(25)?, place(26)?, place(27)?);
    let (dg, du) = device.swiglu_backward(&dy, &g, &u)?;
    values([device.swiglu(&g, &u)?, dg, du])
}

fn activation(device: &Device, input: &CaseInput, act: Activation) -> Result<Outputs, KernelError> {
    let place = |stream| device.place(input.tensor(stream, &[37, 173])?);
    let (g, u, dy) = (place(25)?, place(26)?, place(27)?);
    let (dg, du) = device.gated_backward(&dy, &g, &u, act)?;
    let (y, dx) = (
        device.activation(&g, act)?,
        device.activation_backward(&dy, &g, act)?,
    );
    values([device.gated(&g, &u, act)?, dg, du, y, dx])
}
