//! Rows of a table, and their gradient.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::{Device, KernelError};

pub(super) fn cases() -> Vec<OperationCase> {
    vec![OperationCase::new("embedding 300x24", embedding)]
}

fn embedding(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    let table = device.place(input.tensor(33, &[41, 24])?)?;
    let dy = device.place(input.tensor(34, &[300, 24])?)?;
    let ids = device.ids(&input.ids(35, 300, 41))?;
    let one_id = device.ids(&[7; 300])?;
    values([
        device.embedding(&table, &ids)?,
        device.embedding_gradient(&dy, &ids, 41)?,
        device.embedding_gradient(&dy, &one_id, 41)?,
    ])
}
