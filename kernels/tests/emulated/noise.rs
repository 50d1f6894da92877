//! Dropout and noise in shapes that end within a tile, and under extreme thresholds.

use concord_kernels::coded::Precision;
use concord_kernels::ops::{Dropout, RandomRows};

use crate::gpus::{inputs, same_bits, values};

#[test]
fn nothing_and_nearly_all_is_dropped() {
    for draw in inputs() {
        for (rows, cols) in [(1, 1), (3, 129), (70_000, 1), (2, 4_100)] {
            for threshold in [0, 1, u16::MAX] {
                same_bits(&format!("dropout {rows}x{cols} at {threshold}"), |device| {
                    let tokens = device.ids(&draw.ids(1, 3 * rows, u32::MAX))?;
                    let own = RandomRows {
                        tokens: &tokens,
                        rows: None,
                    };
                    let dropout = Dropout {
                        key: u64::MAX - 5,
                        threshold,
                    };
                    let mut x = device.place(draw.tensor(2, &[rows, cols])?)?;
                    let reach = device.place(draw.tensor(3, &[rows])?)?;
                    let coded = device.code(&x, cols, Precision::I16)?;
                    let coded = device.dropped(&coded, dropout, own)?;
                    device.drop_assign(&mut x, dropout, own)?;
                    device.add_noise(&mut x, 1, &tokens, &reach)?;
                    let mut outputs = values([x])?;
                    outputs.push(coded.on_host()?.decode());
                    Ok(outputs)
                });
            }
        }
    }
}
