//! Random numbers of training: elements that are dropped, and noise.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::coded::Precision;
use crate::ops::{Dropout, RandomRows};
use crate::{Device, KernelError};

pub(super) fn cases() -> Vec<OperationCase> {
    let mut cases = Vec::new();
    for (rows, cols) in [(1, 1), (37, 127), (9, 300), (300, 16)] {
        let run = move |device: &Device, input: &CaseInput| drawn(device, input, rows, cols);
        cases.push(OperationCase::new(format!("noise {rows}x{cols}"), run));
    }
    cases
}

fn drawn(
    device: &Device,
    input: &CaseInput,
    rows: usize,
    cols: usize,
) -> Result<Outputs, KernelError> {
    let tokens = device.ids(&input.ids(120, 3 * rows, u32::MAX))?;
    let dropout = Dropout {
        key: 0x0123_4567_89ab_cdef,
        threshold: 20_000,
    };
    let x = device.place(input.tensor(121, &[rows, cols])?)?;
    let own = RandomRows {
        tokens: &tokens,
        rows: None,
    };
    let coded = device.dropped(&device.code(&x, cols, Precision::I16)?, dropout, own)?;
    let coded = coded.on_host()?.decode();
    let mut dropped = x.clone();
    device.drop_assign(&mut dropped, dropout, own)?;
    // Rows of some tokens, as an expert has them.
    let some = device.ids(&input.ids(122, rows.div_ceil(2), rows as u32))?;
    let mut gathered = x.rows(0, rows.div_ceil(2));
    let rows_of = RandomRows {
        tokens: &tokens,
        rows: Some(&some),
    };
    device.drop_assign(&mut gathered, dropout, rows_of)?;
    let reach = device.place(input.tensor(123, &[rows])?)?;
    let mut noisy = x;
    device.add_noise(&mut noisy, 77, &tokens, &reach)?;
    let mut outputs = values([dropped, gathered, noisy])?;
    outputs.push(coded);
    Ok(outputs)
}
