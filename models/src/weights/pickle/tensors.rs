//! The tensors that the value of a pickle holds, and where their numbers lie.

use std::collections::BTreeMap;
use std::ops::Range;

use super::machine::{Id, Value, Values};
use super::{AGAIN, Places, SAVE_AGAIN};
use crate::json::shown;
use crate::weights::entry::TensorEntry;

/// More dimensions than any weight has.
const RANK_MAX: usize = 8;

/// The tensors by their names: the value is a dictionary of them.
pub(super) fn entries(
    values: &Values,
    places: &Places<'_>,
) -> Result<BTreeMap<String, TensorEntry>, String> {
    let Value::Dict(pairs) = values.get(values.root) else {
        return Err(format!("it holds no dictionary of tensors: {SAVE_AGAIN}"));
    };
    let mut entries = BTreeMap::new();
    for (key, value) in pairs {
        let Value::Text(name) = values.get(*key) else {
            return Err(format!("it has a tensor without a name: {SAVE_AGAIN}"));
        };
        let entry = entry(values, *value, places);
        let entry = entry.map_err(|reason| format!("its tensor `{}` {reason}", shown(name)))?;
        if entries.insert((*name).to_string(), entry).is_some() {
            return Err(format!(
                "it has the tensor `{}` twice; {AGAIN}",
                shown(name)
            ));
        }
    }
    Ok(entries)
}

fn entry(values: &Values, id: Id, places: &Places<'_>) -> Result<TensorEntry, String> {
    let &Value::Tensor {
        storage,
        offset,
        sizes,
        strides,
    } = values.get(id)
    else {
        return Err(format!(
            "is no tensor: the file may be a checkpoint of training. {SAVE_AGAIN}"
        ));
    };
    let (sizes, strides) = (numbers(values, sizes), numbers(values, strides));
    let (Some(sizes), Some(strides)) = (sizes, strides) else {
        return Err(format!("has a shape that cannot be; {AGAIN}"));
    };
    let count = sizes
        .iter()
        .try_fold(1_usize, |count, size| count.checked_mul(*size));
    let count = count.ok_or_else(|| format!("has a shape {sizes:?} that cannot be counted"))?;
    if sizes.len() != strides.len() || !is_in_order(&sizes, &strides) {
        return Err(format!(
            "has its numbers in another order than that of rows (strides {strides:?} of the shape \
             {sizes:?}): {SAVE_AGAIN}"
        ));
    }
    let &Value::Storage {
        dtype,
        key,
        count: stored,
    } = values.get(storage)
    else {
        return Err(format!("has no storage; {AGAIN}"));
    };
    let place = places(key).ok_or_else(|| format!("lies in `{key}`, which is missing; {AGAIN}"))?;
    let width = dtype.bitsize() / 8;
    let bytes = within(&place, (stored, offset), (count, width));
    let bytes = bytes.ok_or_else(|| {
        format!("lies beyond the numbers of `{key}`, of which {stored} are stated; {AGAIN}")
    })?;
    Ok(TensorEntry {
        dtype,
        shape: sizes,
        bytes: (bytes.start, bytes.end),
    })
}

/// The bytes of `count` numbers of `width` from number `offset` on, of the `stored` ones that lie
/// in `place`.
fn within(
    place: &Range<usize>,
    (stored, offset): (i64, i64),
    (count, width): (usize, usize),
) -> Option<Range<usize>> {
    let (stored, offset) = (usize::try_from(stored).ok()?, usize::try_from(offset).ok()?);
    let end = offset.checked_add(count)?;
    if end > stored || stored.checked_mul(width)? > place.len() {
        return None;
    }
    Some(place.start + offset * width..place.start + end * width)
}

/// The whole numbers of a tuple that is a shape.
fn numbers(values: &Values, id: Id) -> Option<Vec<usize>> {
    let Value::Tuple(items) = values.get(id) else {
        return None;
    };
    let number = |id: &Id| match values.get(*id) {
        Value::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    };
    let items = Some(items).filter(|items| items.len() <= RANK_MAX)?;
    items.iter().map(number).collect()
}

/// Whether each row follows the one before it. A dimension of one has any stride.
fn is_in_order(sizes: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    let mut pairs = sizes.iter().zip(strides).rev();
    sizes.contains(&0)
        || pairs.all(|(size, stride)| {
            let is_next = *size == 1 || *stride == expected;
            expected = expected.saturating_mul(*size);
            is_next
        })
}
