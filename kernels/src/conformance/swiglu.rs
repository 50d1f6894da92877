//! SwiGLU and its gradients.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::{Device, KernelError};

pub(super) fn cases() -> Vec<OperationCase> {
    vec![OperationCase::new("swiglu 99x173", swiglu)]
}

fn swiglu(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    let place = |stream| device.place(input.tensor(stream, &[99, 173])?);
    let (g, u, dy) = (place(25)?, place(26)?, place(27)?);
    let (dg, du) = device.swiglu_backward(&dy, &g, &u)?;
    values([device.swiglu(&g, &u)?, dg, du])
}
