//! Rows of a table, and their gradient.

use concord_kernels::conformance::{CaseInput, InputKind};

use crate::gpus::{devices, placed, same_bits, values};

#[test]
fn ids_from_outside_give_nan_and_write_nothing() {
    for device in devices() {
        let table = placed(&device, &[1.0; 12], &[3, 4]).unwrap();
        let ids = device.ids(&[2, 3, u32::MAX]).unwrap();
        let rows = device.embedding(&table, &ids).unwrap();
        let rows = rows.into_values().unwrap();
        assert!(rows[..4].iter().all(|&v| v == 1.0) && rows[4..].iter().all(|v| v.is_nan()));
        let gradient = device.embedding_gradient(&table, &ids, 3).unwrap();
        let gradient = gradient.into_values().unwrap();
        assert_eq!(gradient, [[0.0; 8].as_slice(), &[1.0; 4]].concat());
    }
}

#[test]
fn rows_of_one_id_are_added_and_taken_in_order() {
    let draw = CaseInput::new(3, InputKind::Wide);
    for (tokens, hidden, vocab) in [(1, 1, 1), (70, 33, 1), (513, 300, 40), (66_000, 2, 3)] {
        same_bits(
            &format!("rows of ids {tokens}x{hidden} of {vocab}"),
            |device| {
                let dy = device.place(draw.tensor(1, &[tokens, hidden])?)?;
                let ids = device.ids(&draw.ids(2, tokens, vocab as u32))?;
                let gradient = device.embedding_gradient(&dy, &ids, vocab)?;
                let before = device.place(draw.tensor(3, &[vocab, hidden])?)?;
                let mut dw = before.clone();
                let targets = device.targets(&draw.targets(4, tokens, vocab as u32))?;
                device.take_targets(&mut dw, &dy, &targets, None)?;
                values([gradient, before, dw])
            },
        );
    }
}
