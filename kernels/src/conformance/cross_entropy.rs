//! The loss, and the gradients of the head.

use super::{CaseInput, CaseSize, OperationCase, Outputs, values};
use crate::coded::Precision;
use crate::ops::LossForm;
use crate::reference::tree::Atoms;
use crate::{Device, KernelError};

pub(super) fn cases(size: CaseSize) -> Vec<OperationCase> {
    let mut cases = vec![OperationCase::new("head 300x24x77", head)];
    let mut sizes = vec![1, 17, 512, 9_001];
    if size == CaseSize::Full {
        sizes.push(151_936);
    }
    cases.extend(sizes.into_iter().map(|vocab| {
        OperationCase::new(format!("cross entropy 6x{vocab}"), move |device, input| {
            cross_entropy(device, input, vocab)
        })
    }));
    for form in FORMS {
        cases.push(OperationCase::new(
            format!("loss 6x9001 of {form:?}"),
            move |device, input| formed(device, input, form),
        ));
    }
    cases
}

/// Smoothed targets, a factor on the squared logarithm of the sum, and both.
const FORMS: [LossForm; 3] = [
    LossForm {
        smoothing: 0.1,
        z_loss: 0.0,
    },
    LossForm {
        smoothing: 0.0,
        z_loss: 1e-4,
    },
    LossForm {
        smoothing: 0.3,
        z_loss: 0.02,
    },
];

fn formed(device: &Device, input: &CaseInput, form: LossForm) -> Result<Outputs, KernelError> {
    let mut p = device.place(input.tensor(28, &[6, 9_001])?)?;
    let targets = device.targets(&input.targets(29, 6, 9_001))?;
    let losses = device.formed_loss(&mut p, &targets, form)?;
    let ones = device.ones_of_targets(&targets, 33)?;
    values([p, losses, ones])
}

fn cross_entropy(device: &Device, input: &CaseInput, vocab: usize) -> Result<Outputs, KernelError> {
    let mut p = device.place(input.tensor(28, &[6, vocab])?)?;
    let targets = device.targets(&input.targets(29, 6, vocab as u32))?;
    let losses = device.cross_entropy(&mut p, &targets)?;
    let sum = device.loss_sum(&losses, &Atoms::new(3, 2))?;
    let mut outputs = values([p, losses])?;
    outputs.push(vec![sum]);
    Ok(outputs)
}

fn head(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    let (x, w) = (input.tensor(30, &[300, 24])?, input.tensor(31, &[77, 24])?);
    let (x, w) = (device.place(x)?, device.place(w)?);
    let targets = device.targets(&input.targets(32, 300, 77))?;
    let p = Precision::I16;
    let (xc, wc) = (device.code(&x, 24, p)?, device.code(&w, 24, p)?);
    let mut probabilities = device.matmul(&xc, &wc)?;
    device.cross_entropy(&mut probabilities, &targets)?;
    let dx = device.head_dx(&probabilities, &targets, &wc, p, None)?;
    let mut dw = device.matmul_dw(&probabilities, &xc, &Atoms::new(1, 300), p)?;
    device.take_targets(&mut dw, &x, &targets, None)?;
    values([dx, dw])
}
