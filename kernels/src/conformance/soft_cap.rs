//! Soft caps, of any tensor and of the head.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::coded::Precision;
use crate::reference::tree::Atoms;
use crate::{Device, KernelError};

pub(super) fn cases() -> Vec<OperationCase> {
    vec![
        OperationCase::new("soft cap 61x83", |device, input| {
            soft_cap(device, input, 0.8)
        }),
        OperationCase::new("soft cap 61x83, high", |device, input| {
            soft_cap(device, input, 50.0)
        }),
        OperationCase::new("soft cap of the head 300x24x77", head),
    ]
}

fn soft_cap(device: &Device, input: &CaseInput, cap: f32) -> Result<Outputs, KernelError> {
    let x = device.place(input.tensor(96, &[61, 83])?)?;
    let dy = device.place(input.tensor(97, &[61, 83])?)?;
    let y = device.soft_cap(&x, cap)?;
    let dx = device.soft_cap_backward(&dy, &y, cap)?;
    values([y, dx])
}

/// Loss and gradients of a head whose logits are capped.
fn head(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    let (cap, p) = (2.0, Precision::I16);
    let (x, w) = (input.tensor(98, &[300, 24])?, input.tensor(99, &[77, 24])?);
    let (x, w) = (device.place(x)?, device.place(w)?);
    let targets = device.targets(&input.targets(32, 300, 77))?;
    let (xc, wc) = (device.code(&x, 24, p)?, device.code(&w, 24, p)?);
    let logits = device.soft_cap(&device.matmul(&xc, &wc)?, cap)?;
    let mut probabilities = logits.clone();
    let losses = device.cross_entropy(&mut probabilities, &targets)?;
    let slopes = device.soft_cap_targets(&logits, &targets, cap)?;
    let d_logits = device.soft_cap_backward(&probabilities, &logits, cap)?;
    let dx = device.head_dx(&d_logits, &targets, &wc, p, Some(&slopes))?;
    let mut dw = device.matmul_dw(&d_logits, &xc, &Atoms::new(1, 300), p)?;
    device.take_targets(&mut dw, &x, &targets, Some(&slopes))?;
    values([losses, slopes, d_logits, dx, dw])
}
