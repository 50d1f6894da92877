//! Columns taken out and put back.

use super::{CaseInput, OperationCase, Outputs, values};
use crate::reference::columns::Columns;
use crate::{Device, KernelError};

/// Groups, their width, and where the parts that make up a group begin and end.
const CUTS: [(usize, usize, &[usize]); 4] = [
    // q, k and v one after another; then by heads.
    (1, 160, &[0, 96, 128, 160]),
    (5, 33, &[0, 11, 22, 33]),
    // Gate and up in halves; then by turns.
    (1, 70, &[0, 35, 70]),
    (35, 2, &[0, 1, 2]),
];

pub(super) fn cases() -> Vec<OperationCase> {
    let case = |(groups, group_width, ends): (usize, usize, &'static [usize])| {
        let name = format!("columns {groups}x{group_width}");
        let cut = move |from: &[usize]| Columns {
            groups,
            group_width,
            offset: from[0],
            width: from[1] - from[0],
        };
        OperationCase::new(name, move |device, input| {
            columns(device, input, &ends.windows(2).map(cut).collect::<Vec<_>>())
        })
    };
    CUTS.map(case).into()
}

fn columns(device: &Device, input: &CaseInput, cuts: &[Columns]) -> Result<Outputs, KernelError> {
    let rows = 41;
    let x = device.place(input.tensor(90, &[rows, cuts[0].whole()])?)?;
    let mut parts = Vec::new();
    let mut put = device.place(input.tensor(91, &[rows, cuts[0].whole()])?)?;
    for cut in cuts {
        parts.push(device.take_columns(&x, cut)?);
    }
    // The first part keeps what was there.
    for (cut, part) in cuts.iter().zip(&parts).skip(1) {
        device.put_columns(&mut put, cut, part)?;
    }
    parts.push(put);
    values(parts)
}
