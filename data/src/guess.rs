//! What the rows of a file are, from the names of the first one's fields.

use std::path::Path;

use serde_json::{Map, Value};

use crate::chosen::Chosen;
use crate::each_row;
use crate::error::DataError;
use crate::fields;
use crate::files::{self, FileForm};
use crate::source::{DatasetKind, DatasetSource};

/// Fields that say of which kind a row is: the first that a row has all of counts.
const SIGNS: [(&[&str], DatasetKind); 8] = [
    (&["input_ids"], DatasetKind::Tokens),
    (&["messages"], DatasetKind::ChatTemplate),
    (&["conversations"], DatasetKind::ShareGpt),
    (&["prompt", "completion"], DatasetKind::PromptCompletion),
    (&["segments"], DatasetKind::InputOutput),
    (&["instruction", "output"], DatasetKind::AlpacaTurns),
    (&["question", "answer"], DatasetKind::AlpacaTurns),
    (&["text"], DatasetKind::Text),
];

/// The fields of the first row of a data set's files.
///
/// # Errors
/// [`DataError`] where there is none, or it cannot be read.
pub fn first_row(source: &DatasetSource) -> Result<Map<String, Value>, DataError> {
    let mut found = None;
    let (paths, first) = (source.files()?, Chosen::first(1));
    each_row::for_each(source, &paths, &first, &mut |_| {}, &mut |row| {
        found = Some(row.fields.clone());
        Ok(())
    })?;
    found.ok_or_else(|| DataError::file(&source.path, "it is empty"))
}

/// A data set of the kind that its first row looks like; a text file is one of type `text`.
/// Instructions are turns where the model `has_template` for them, else a line each.
///
/// # Errors
/// [`DataError`] where the file cannot be read, or where its fields say nothing.
pub fn guess(path: &Path, has_template: bool) -> Result<DatasetSource, DataError> {
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    if ending == "safetensors" {
        return Ok(DatasetSource::new(path, DatasetKind::Tokens));
    }
    let source = DatasetSource::new(path, DatasetKind::Text);
    let paths = source.files()?;
    let first = paths.first().map(|path| files::form(path, source.kind).1);
    if first == Some(FileForm::Plain) {
        return Ok(source);
    }
    let mut found = None;
    each_row::for_each(
        &source,
        &paths,
        &Chosen::first(1),
        &mut |_| {},
        &mut |row| {
            let has = |key: &&str| row.fields.get(*key).is_some_and(|value| !value.is_null());
            let sign = SIGNS.iter().find(|(keys, _)| keys.iter().all(&has));
            let Some((keys, kind)) = sign else {
                let names: Vec<&str> = row.fields.keys().map(String::as_str).take(16).collect();
                let remedy = names.iter().find_map(|name| fields::of_another_shape(name));
                return Err(row.fail(format!(
                    "its fields do not say what it is: {}; {}",
                    names.join(", "),
                    remedy.unwrap_or("name its `type`")
                )));
            };
            let kind = match kind {
                DatasetKind::AlpacaTurns if !has_template => DatasetKind::Instruct,
                kind => *kind,
            };
            let mut source = DatasetSource::new(path, kind);
            if kind.has_input() {
                source.field_instruction = keys[0].to_string();
                source.field_output = keys[1].to_string();
            }
            let list = row.fields.get(&source.field_messages);
            let first = list.and_then(Value::as_array).and_then(|list| list.first());
            if kind.has_messages() && first.is_some_and(|first| first.get("role").is_some()) {
                let properties = [("role", "role"), ("content", "content")];
                source.message_properties = properties.map(|(a, b)| (a.into(), b.into())).into();
            }
            found = Some(source);
            Ok(())
        },
    )?;
    found.ok_or_else(|| DataError::file(path, "it is empty"))
}
