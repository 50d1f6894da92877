//! Rotary embedding, there and back.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::tables::{FrequencyScaling, RopeTable};
use crate::{Device, KernelError};

pub(super) fn cases() -> Vec<OperationCase> {
    vec![OperationCase::new("rope 300x48", rope)]
}

fn rope(device: &Device, input: &CaseInput) -> Result<Outputs, KernelError> {
    let table = RopeTable::new(16, 10_000.0, FrequencyScaling::None, 300);
    let table = device.place_rope(table)?;
    let positions = device.ids(&(0..300).rev().collect::<Vec<u32>>())?;
    let mut x = device.place(input.tensor(24, &[300, 48])?)?;
    device.rope(&mut x, &table, &positions, false)?;
    let forward = x.clone();
    device.rope(&mut x, &table, &positions, true)?;
    values([forward, x])
}
