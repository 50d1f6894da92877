//! What the rows of a data set are, by the columns of the first, as TRL and Unsloth find it.

use concord_data::{DatasetKind, DatasetSource, HubChoice};
use concord_recipe::{Dataset, RowKind};
use serde_json::{Map, Value};

use crate::support::hub_data;

/// Fields of data that answers are not learnt from.
const OTHERS: [&str; 7] = [
    "chosen",
    "rejected",
    "label",
    "labels",
    "completions",
    "images",
    "image",
];

/// Names of an instruction and its answer.
const ASKING: [(&str, &str); 2] = [("instruction", "output"), ("question", "answer")];

/// Finds the kind of a data set's rows, and the names of its fields, from the first row. A set of
/// the hub is downloaded.
pub(super) fn see(dataset: &mut Dataset) -> Result<(), String> {
    let row = first_row(dataset)?;
    of_row(dataset, &row)
}

fn first_row(dataset: &Dataset) -> Result<Map<String, Value>, String> {
    let mut source = DatasetSource::new(&*dataset.path, DatasetKind::Completion);
    source.split = dataset.split.as_deref().map(str::parse).transpose()?;
    source.hub = HubChoice {
        name: dataset.name.clone(),
        revision: dataset.revision.clone(),
        data_files: dataset.data_files.clone(),
    };
    hub_data::find(&mut source).map_err(|error| format!("{error:#}"))?;
    let row = concord_data::first_row(&source).map_err(|error| error.to_string())?;
    match dataset.columns.is_empty() {
        true => Ok(row),
        false => Ok(row
            .into_iter()
            .filter(|(key, _)| dataset.columns.contains(key))
            .collect()),
    }
}

fn of_row(dataset: &mut Dataset, row: &Map<String, Value>) -> Result<(), String> {
    let has = |key: &str| row.get(key).is_some_and(|value| !value.is_null());
    if let Some(other) = OTHERS.into_iter().find(|key| has(key)) {
        return Err(format!(
            "its rows have `{other}`: only texts and answers are learnt"
        ));
    }
    let asking = ASKING
        .into_iter()
        .find(|(asks, answers)| has(asks) && has(answers));
    let text = dataset.fields.get("text").map_or("text", String::as_str);
    let is_guessed = dataset.kind == RowKind::Guessed;
    dataset.kind = if has("messages") {
        RowKind::Chat
    } else if has("conversations") {
        sharegpt(dataset, &row["conversations"]);
        RowKind::Chat
    } else if has("prompt") && has("completion") {
        RowKind::PromptCompletion
    } else if let (Some((asks, answers)), true) = (asking, is_guessed) {
        dataset.fields.insert("instruction", asks.to_string());
        dataset.fields.insert("output", answers.to_string());
        RowKind::AlpacaChat
    } else if has(text) {
        RowKind::Completion
    } else {
        let more = if is_guessed {
            ", `instruction` and `output`"
        } else {
            ""
        };
        return Err(format!(
            "its rows have neither `messages`, nor `conversations`, nor `prompt` and \
             `completion`{more}, nor `{text}`"
        ));
    };
    Ok(())
}

/// The names that `conversations` have within turns.
fn sharegpt(dataset: &mut Dataset, turns: &Value) {
    dataset
        .fields
        .insert("messages", "conversations".to_string());
    if turns[0].get("from").is_some() {
        dataset.fields.insert("role", "from".to_string());
        dataset.fields.insert("content", "value".to_string());
    }
}
