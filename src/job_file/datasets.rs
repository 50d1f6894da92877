//! The data sets of a job file.

use anyhow::bail;
use concord_models::data::{DatasetKind, DatasetSource};

use super::keys::Keys;

/// Every key of an entry of `datasets`.
const DATASET_KEYS: [&str; 5] = ["path", "type", "field", "field_instruction", "field_output"];

/// The entries of `datasets`, at least one.
pub(super) fn read(keys: &Keys) -> anyhow::Result<Vec<DatasetSource>> {
    let entries = keys.need("datasets", keys.maps("datasets")?)?;
    if entries.is_empty() {
        bail!(
            "{}: `datasets` is empty; name at least one file",
            keys.place("datasets")
        );
    }
    let sources = entries
        .iter()
        .map(dataset)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let alone = |source: &DatasetSource| source.kind != DatasetKind::Tokens;
    if sources.len() > 1 && !sources.iter().all(alone) {
        bail!(
            "{}: a data set of type `tokens` is taken as it is, so it must be the only one",
            keys.place("datasets")
        );
    }
    Ok(sources)
}

fn dataset(keys: &Keys) -> anyhow::Result<DatasetSource> {
    keys.refuse_unknown(&DATASET_KEYS, &[])?;
    let path = keys.need("path", keys.text("path")?)?;
    let kinds = DatasetKind::ALL.map(|kind| (kind.name(), kind));
    let kind = keys.need("type", keys.one_of("type", &kinds)?)?;
    let mut source = DatasetSource::new(path, kind);
    let fields = [
        ("field", &mut source.field),
        ("field_instruction", &mut source.field_instruction),
        ("field_output", &mut source.field_output),
    ];
    for (key, field) in fields {
        if let Some(name) = keys.text(key)? {
            *field = name;
        }
    }
    Ok(source)
}

/// `shuffle`, which a `tokens` file forbids and others have by default.
pub(super) fn shuffle(keys: &Keys, datasets: &[DatasetSource]) -> anyhow::Result<bool> {
    let as_given = datasets
        .iter()
        .any(|source| source.kind == DatasetKind::Tokens);
    match (keys.flag("shuffle")?, as_given) {
        (Some(true), true) => bail!(
            "{}: `shuffle` is true, but a data set of type `tokens` is taken in its own order; \
             remove `shuffle`",
            keys.place("shuffle")
        ),
        (asked, as_given) => Ok(asked.unwrap_or(!as_given)),
    }
}
