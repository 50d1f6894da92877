//! The data sets of a job file.

use anyhow::bail;
use concord_models::data::{DatasetKind, DatasetSource};

use super::keys::Keys;
use super::known::Section;

/// Keys that name fields of rows, and the type that reads them.
const FIELD_KEYS: [(&str, DatasetKind); 4] = [
    ("field", DatasetKind::Text),
    ("field_instruction", DatasetKind::Instruct),
    ("field_input", DatasetKind::Instruct),
    ("field_output", DatasetKind::Instruct),
];

/// The entries of `datasets`, at least one.
pub(super) fn read(keys: &Keys) -> anyhow::Result<Vec<DatasetSource>> {
    let entries = keys.maps("datasets", Section::Dataset)?;
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
    keys.check()?;
    let path = keys.path("path")?;
    let kind = keys.word("type", &DatasetKind::ALL)?;
    let mut source = DatasetSource::new(path, kind);
    source.field = keys.text("field")?;
    source.field_instruction = keys.text("field_instruction")?;
    source.field_input = keys.text("field_input")?;
    source.field_output = keys.text("field_output")?;
    source.ignore_fields = keys.texts_if("ignore_fields")?.unwrap_or_default();
    check_fields(keys, &source)?;
    Ok(source)
}

/// Refuses keys that name a field which the type does not read, and fields that are named twice.
fn check_fields(keys: &Keys, source: &DatasetSource) -> anyhow::Result<()> {
    for (key, kind) in FIELD_KEYS {
        if keys.has(key) && kind != source.kind {
            return Err(keys.idle(key, &format!("with `type: {}`", source.kind.name())));
        }
    }
    for key in ["field", "ignore_fields"] {
        if keys.has(key) && !source.has_rows() {
            return Err(keys.idle(key, "on a file without rows (.jsonl or .json)"));
        }
    }
    let used = match source.kind {
        DatasetKind::Text => vec![&source.field],
        DatasetKind::Instruct => vec![
            &source.field_instruction,
            &source.field_input,
            &source.field_output,
        ],
        DatasetKind::Tokens => Vec::new(),
    };
    let twice = (1..used.len()).find(|index| used[..*index].contains(&used[*index]));
    if let Some(index) = twice {
        bail!(
            "{}: the field `{}` is named twice; the instruction, the input and the output are \
             fields of their own",
            keys.place("path"),
            used[index]
        );
    }
    match source.ignore_fields.iter().find(|name| used.contains(name)) {
        Some(name) => bail!(
            "{}: `ignore_fields` has `{name}`, which is read; take it off the list",
            keys.place("ignore_fields")
        ),
        None => Ok(()),
    }
}

/// `shuffle`, which is forbidden for a `tokens` file and true by default for others.
pub(super) fn shuffle(keys: &Keys, datasets: &[DatasetSource]) -> anyhow::Result<bool> {
    let as_given = datasets
        .iter()
        .any(|source| source.kind == DatasetKind::Tokens);
    match (keys.flag_if("shuffle")?, as_given) {
        (Some(true), true) => bail!(
            "{}: `shuffle` is true, but a data set of type `tokens` is taken in its own order; \
             remove `shuffle`",
            keys.place("shuffle")
        ),
        (asked, as_given) => Ok(asked.unwrap_or(!as_given)),
    }
}
