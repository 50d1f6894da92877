//! Files of torch before 1.6: five pickles, one after another, and the numbers behind them.

use std::collections::BTreeMap;

use super::machine::{self, Value};
use super::{AGAIN, SAVE_AGAIN, part, tensors};
use crate::weights::entry::TensorEntry;

/// The first pickle, a number that marks these files, and the second, their version.
const BEGIN: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";

/// The tensors of a file, by their names.
pub(super) fn entries(map: &[u8]) -> Result<BTreeMap<String, TensorEntry>, String> {
    let Some(rest) = map.strip_prefix(BEGIN) else {
        return Err(format!(
            "it is a pickle, but not one of torch.save: {SAVE_AGAIN}"
        ));
    };
    let mut at = map.len() - rest.len();
    let mut next = || {
        let (values, length) = machine::run(part(map, at, map.len() - at)?)?;
        at += length;
        Ok::<_, String>((values, at))
    };
    let (machine, _) = next()?;
    check_order(&machine)?;
    let (root, _) = next()?;
    let (keys, mut at) = next()?;
    // The type of a storage stands with its tensors.
    let widths = storage_widths(&root);
    let mut places = BTreeMap::new();
    let Value::List(list) = keys.get(keys.root) else {
        return Err(format!("it does not list its storages; {AGAIN}"));
    };
    for id in list {
        let Value::Text(key) = keys.get(*id) else {
            return Err(format!("it has a storage without a key; {AGAIN}"));
        };
        let width = widths.get(key).copied();
        let width = width.ok_or_else(|| format!("its storage `{key}` is of no tensor; {AGAIN}"))?;
        let mut word = [0; 8];
        word.copy_from_slice(part(map, at, 8)?);
        let bytes = usize::try_from(u64::from_le_bytes(word)).ok();
        let bytes = bytes.and_then(|count| count.checked_mul(width));
        let bytes = bytes.ok_or_else(|| format!("its storage `{key}` cannot be counted"))?;
        part(map, at + 8, bytes)?;
        places.insert((*key).to_string(), at + 8..at + 8 + bytes);
        at += 8 + bytes;
    }
    tensors::entries(&root, &|key| places.get(key).cloned())
}

/// The bytes of a number of each storage, by its key.
fn storage_widths<'a>(values: &machine::Values<'a>) -> BTreeMap<&'a str, usize> {
    let storages = values.all().filter_map(|value| match value {
        Value::Storage { dtype, key, .. } => Some((*key, dtype.bitsize() / 8)),
        _ => None,
    });
    storages.collect()
}

/// Refuses numbers in the order of bytes of another machine.
fn check_order(values: &machine::Values) -> Result<(), String> {
    let Value::Dict(pairs) = values.get(values.root) else {
        return Err(format!("it does not say of which machine it is; {AGAIN}"));
    };
    let is_little = pairs.iter().any(|(key, value)| {
        *values.get(*key) == Value::Text("little_endian")
            && *values.get(*value) == Value::Bool(true)
    });
    match is_little {
        true => Ok(()),
        false => Err(format!(
            "its numbers have the order of bytes of another machine: {SAVE_AGAIN}"
        )),
    }
}
