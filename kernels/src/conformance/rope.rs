//! Rotary embedding, there and back.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::tables::{FrequencyScaling, RopePairs, RopeTable};
use crate::{Device, KernelError};

pub(super) fn cases() -> Vec<OperationCase> {
    let whole = || RopeTable::new(16, 10_000.0, FrequencyScaling::None, 300);
    let yarn = FrequencyScaling::Yarn {
        factor: 4.0,
        original_max_positions: 64.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: 1.14,
    };
    let partial = move |pairs, head_dim, width| RopeTable {
        head_dim,
        pairs,
        ..RopeTable::new(width, 500.0, yarn.clone(), 300)
    };
    let halves = partial.clone();
    vec![
        OperationCase::new("rope 300x48", move |device, input| {
            rope(device, input, whole())
        }),
        OperationCase::new("rope of 10 of 24", move |device, input| {
            rope(device, input, halves(RopePairs::Halves, 24, 10))
        }),
        OperationCase::new("rope of neighbours, 14 of 16", move |device, input| {
            rope(device, input, partial(RopePairs::Neighbours, 16, 14))
        }),
    ]
}

fn rope(device: &Device, input: &CaseInput, table: RopeTable) -> Result<Outputs, KernelError> {
    let table = device.place_rope(table)?;
    let positions = device.ids(&(0..300).rev().collect::<Vec<u32>>())?;
    let mut x = device.place(input.tensor(24, &[300, 48])?)?;
    device.rope(&mut x, &table, &positions, false)?;
    let forward = x.clone();
    device.rope(&mut x, &table, &positions, true)?;
    values([forward, x])
}
