//! Models that lie in several GGUF files: their names, and what they say of each other.

use super::container::GgufFile;
use crate::error::ModelError;

/// The most parts that a model may have.
const PARTS_MAX: u64 = 10_000;

/// Whether a file is no part, or the first one.
pub(super) fn is_first(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".gguf") else {
        return false;
    };
    match part_name(stem) {
        Some((_, number, _)) => number == 1,
        None => true,
    }
}

/// `name-00001-of-00003`: the name, the number, and how many there are.
fn part_name(stem: &str) -> Option<(&str, u64, u64)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let number_of = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    Some((name, number_of(number)?, number_of(count)?))
}

/// The names of all parts of a model, by that of one of them.
#[cfg(feature = "hub")]
pub(crate) fn gguf_parts(file: &str) -> Vec<String> {
    let named = file.strip_suffix(".gguf").and_then(part_name);
    match named.filter(|(_, _, count)| *count <= PARTS_MAX) {
        None => vec![file.to_string()],
        Some((name, _, count)) => (1..=count)
            .map(|number| format!("{name}-{number:05}-of-{count:05}.gguf"))
            .collect(),
    }
}

/// The file, and the parts that follow it.
pub(super) fn parts(first: GgufFile) -> Result<Vec<GgufFile>, ModelError> {
    let whole = |file: &GgufFile, key: &str| file.get(key).and_then(|value| value.whole());
    let count = match first.get("split.count") {
        None => return Ok(vec![first]),
        Some(value) => value
            .whole()
            .filter(|count| (1..=PARTS_MAX).contains(count)),
    };
    let count =
        count.ok_or_else(|| first.bad_key("split.count", "it must be a number of parts"))?;
    if whole(&first, "split.no") != Some(0) {
        return Err(first.bad_key("split.no", "the first part of a model must have 0"));
    }
    if count == 1 {
        return Ok(vec![first]);
    }
    let path = first.path().to_path_buf();
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let named = stem
        .and_then(part_name)
        .filter(|named| named.1 == 1 && named.2 == count);
    let Some((name, _, _)) = named else {
        let reason = format!(
            "the file must have the name NAME-00001-of-{count:05}.gguf, as its parts have: rename \
             it"
        );
        return Err(first.bad_key("split.count", reason));
    };
    let total = whole(&first, "split.tensors.count");
    let mut files = vec![first];
    for number in 1..count {
        let next = path.with_file_name(format!("{name}-{:05}-of-{count:05}.gguf", number + 1));
        let next = GgufFile::open(&next)?;
        if whole(&next, "split.no") != Some(number) || whole(&next, "split.count") != Some(count) {
            let reason = format!("it must be {number}, of {count} parts: download the parts again");
            return Err(next.bad_key("split.no", reason));
        }
        files.push(next);
    }
    let found: usize = files.iter().map(|file| file.tensors.len()).sum();
    if total.is_some_and(|total| total != found as u64) {
        let reason = format!("the parts have {found} tensors: download them again");
        return Err(files[0].bad_key("split.tensors.count", reason));
    }
    Ok(files)
}

/// Refuses a part that is not the first one of its model: it says nothing of the whole.
pub(super) fn check_first(file: &GgufFile) -> Result<(), ModelError> {
    let key = "split.no";
    match file.get(key).and_then(|value| value.whole()) {
        None | Some(0) => Ok(()),
        Some(_) => Err(file.bad_key(
            key,
            "it is a later part of a model: name the first one, which has 0",
        )),
    }
}
