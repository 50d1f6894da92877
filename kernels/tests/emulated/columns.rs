//! Columns of matrices with more rows than a grid has blocks.

use concord_kernels::conformance::{CaseInput, InputKind};
use concord_kernels::ops::Columns;

use crate::gpus::{same_bits, values};

#[test]
fn columns_of_many_rows_and_of_wide_ones() {
    let draw = CaseInput::new(9, InputKind::Ordinary);
    for (rows, groups, group_width) in [(66_000, 1, 3), (1, 1, 1), (2, 400, 3), (3, 2, 1_025)] {
        let columns = Columns {
            groups,
            group_width,
            offset: group_width / 2,
            width: group_width - group_width / 2,
        };
        same_bits(&format!("columns {rows} of {columns:?}"), |device| {
            let shape = [rows, columns.whole()];
            let (x, mut put) = (draw.tensor(1, &shape)?, draw.tensor(2, &shape)?);
            let part = device.take_columns(&device.place(x)?, &columns)?;
            device.put_columns(&mut put, &columns, &part)?;
            values([part, put])
        });
    }
}
