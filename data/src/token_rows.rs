//! Rows of `tokens`: ids that another program has made, with labels where only some are learnt.

use serde_json::Value;

use crate::error::{DataError, shown};
use crate::example::Example;
use crate::fields;
use crate::names::{ATTENTION, IDS, LABELS};
use crate::rows::Row;
use crate::source::DatasetSource;

/// The label of a token that is not learnt.
const IGNORED: i64 = -100;

/// The example of a row.
pub(crate) fn example(source: &DatasetSource, row: &Row) -> Result<Example, DataError> {
    let ids = numbers(row, IDS)?;
    let ids = ids.ok_or_else(|| fields::missing(source, row, IDS))?;
    fields::check(source, row)?;
    let ids = ids.into_iter().map(|id| {
        u32::try_from(id).map_err(|_| row.fail(format!("`{IDS}` has {id}, which is no token id")))
    });
    let ids = ids.collect::<Result<Vec<u32>, DataError>>()?;
    let labels = numbers(row, LABELS)?;
    let attention = numbers(row, ATTENTION)?;
    for (key, list) in [(LABELS, &labels), (ATTENTION, &attention)] {
        if let Some(list) = list.as_ref().filter(|list| list.len() != ids.len()) {
            return Err(row.fail(format!(
                "`{key}` has {} numbers, but `{IDS}` has {}; make them as long",
                list.len(),
                ids.len()
            )));
        }
    }
    if attention.is_some_and(|list| list.iter().any(|one| *one != 1)) {
        return Err(row.fail(format!(
            "`{ATTENTION}` has something else than 1; take the padding off the row"
        )));
    }
    let mask = match labels {
        None => vec![1; ids.len()],
        Some(labels) => {
            let learnt = labels.iter().zip(&ids).map(|(label, id)| match *label {
                IGNORED => Ok(0),
                label if label == i64::from(*id) => Ok(1),
                label => Err(row.fail(format!(
                    "`{LABELS}` has {label} where `{IDS}` has {id}; a label is the id, or {IGNORED}"
                ))),
            });
            learnt.collect::<Result<Vec<u8>, DataError>>()?
        }
    };
    let example = Example {
        ids,
        mask,
        shortened: 0,
    };
    match example.trained() {
        0 => Err(row.fail("it has no token to learn; remove the row")),
        _ => Ok(example),
    }
}

/// The whole numbers of a field; `None` where it is absent or null.
fn numbers(row: &Row, key: &str) -> Result<Option<Vec<i64>>, DataError> {
    let Some(list) = row.list(key)? else {
        return Ok(None);
    };
    let number = |value: &Value| {
        let number = value.as_i64();
        number.ok_or_else(|| row.fail(format!("`{key}` has {}, not a whole number", shown(value))))
    };
    list.iter().map(number).collect::<Result<_, _>>().map(Some)
}
