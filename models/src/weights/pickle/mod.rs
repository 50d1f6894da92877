//! Files of `torch.save`: a pickle that says which tensors there are, and their numbers beside it.
//!
//! A pickle is a program. Nothing of it is run here: a small machine follows the few steps that
//! dictionaries of tensors are made of, and refuses all others by name. The numbers stay in the
//! file, whose map is read like that of a safetensors file.

mod legacy;
mod machine;
mod tensors;
mod zip;

use std::collections::BTreeMap;
use std::ops::Range;

use super::entry::TensorEntry;

/// What to do about a file that is broken.
const AGAIN: &str = "download the file again";
/// What to do about a file that is whole, but of a kind that is not read.
const SAVE_AGAIN: &str = "load the model with transformers where you trust it, and save it again \
                          (save_pretrained), which writes safetensors";

/// More steps than the pickle of any model that is read has. It bounds what one can hold.
const STEPS_MAX: usize = 1 << 22;
/// A longer one is of no model.
const PICKLE_MAX: usize = 1 << 27;

/// The tensors of a file, by their names.
///
/// # Errors
/// What is wrong with the file, and what to do: the end of a sentence.
pub(super) fn entries(map: &[u8]) -> Result<BTreeMap<String, TensorEntry>, String> {
    match map {
        [b'P', b'K', ..] => archive(map),
        [0x80, ..] => legacy::entries(map),
        _ => Err(format!(
            "it begins as no file of torch.save does; {AGAIN}, or take one of safetensors"
        )),
    }
}

/// A file of torch 1.6 or later: a zip archive whose members are not compressed.
fn archive(map: &[u8]) -> Result<BTreeMap<String, TensorEntry>, String> {
    let members = zip::members(map)?;
    let mut pickles = members.keys().filter_map(|name| {
        let folder = name.strip_suffix("data.pkl")?;
        (folder.is_empty() || folder.ends_with('/')).then_some(folder)
    });
    let (Some(folder), None) = (pickles.next(), pickles.next()) else {
        return Err(format!(
            "it is a zip archive without a data.pkl, or with several: {SAVE_AGAIN}"
        ));
    };
    let member = |name: &str| members.get(&format!("{folder}{name}"));
    if let Some(order) = member("byteorder")
        && map[order.clone()] != *b"little"
    {
        return Err(format!(
            "its numbers have the order of bytes of another machine: {SAVE_AGAIN}"
        ));
    }
    if member("constants.pkl").is_some() {
        return Err(format!("it is a program of TorchScript: {SAVE_AGAIN}"));
    }
    let pickle = member("data.pkl").map_or(&[][..], |place| &map[place.clone()]);
    let (values, _) = machine::run(pickle)?;
    let place = |key: &str| member(&format!("data/{key}")).cloned();
    tensors::entries(&values, &place)
}

/// Where the numbers of a storage lie in the file, by its key.
type Places<'a> = dyn Fn(&str) -> Option<Range<usize>> + 'a;

/// A part of the bytes, with no panic.
fn part(bytes: &[u8], start: usize, length: usize) -> Result<&[u8], String> {
    let end = start.checked_add(length);
    let found = end.and_then(|end| bytes.get(start..end));
    found.ok_or_else(|| {
        format!(
            "it is cut short: {length} bytes are needed at byte {start}, and {} are there; {AGAIN}",
            bytes.len()
        )
    })
}
