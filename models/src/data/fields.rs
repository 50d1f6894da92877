//! Which fields of a row a type of data set uses. Every other field must be known to hold nothing
//! to learn, or be named in the job's `ignore_fields`; else it is refused.

use serde_json::Value;

use super::rows::Row;
use super::{DatasetKind, DatasetSource};
use crate::error::ModelError;

/// Fields that say where a row comes from, or classify it: nothing to learn.
const HARMLESS: [&str; 47] = [
    "_id",
    "author",
    "category",
    "chunk_id",
    "created",
    "created_at",
    "dataset",
    "date",
    "difficulty",
    "doc_id",
    "domain",
    "dump",
    "example_id",
    "file_path",
    "hash",
    "id",
    "idx",
    "index",
    "lang",
    "language",
    "language_score",
    "length",
    "level",
    "license",
    "meta",
    "metadata",
    "model",
    "num_tokens",
    "origin",
    "path",
    "quality",
    "quality_score",
    "row_id",
    "sample_id",
    "score",
    "source",
    "subject",
    "tag",
    "tags",
    "timestamp",
    "token_count",
    "topic",
    "type",
    "uid",
    "url",
    "uuid",
    "version",
];

/// Fields of other shapes of data, and what to do with them.
const REMEDIES: [(&[&str], &str); 6] = [
    (
        &[
            "messages",
            "conversations",
            "conversation",
            "dialog",
            "dialogue",
            "turns",
        ],
        "conversations are not read: write each as an instruction and its output",
    ),
    (
        &["system", "system_prompt", "history"],
        "put its text into the instruction",
    ),
    (
        &["chosen", "rejected", "preferred", "completions"],
        "preferences are not trained on: write the better answer as the output",
    ),
    (
        &["tools", "functions", "tool_calls"],
        "tools are not read: write their description into the instruction",
    ),
    (
        &["image", "images", "audio", "video"],
        "only text is trained on",
    ),
    (
        &["input_ids", "attention_mask", "labels"],
        "token ids are read from a safetensors file with `type: tokens`",
    ),
];

/// Names that other tools use for the instruction.
const ASKING: [&str; 6] = [
    "instruction",
    "question",
    "prompt",
    "query",
    "problem",
    "input",
];

/// Their names for the output.
const ANSWERING: [&str; 6] = [
    "output",
    "answer",
    "response",
    "completion",
    "solution",
    "target",
];

/// Their names for a document.
const DOCUMENT: [&str; 6] = ["text", "content", "document", "body", "article", "code"];

/// Their names for the text that an instruction is about.
const ABOUT: [&str; 3] = ["input", "context", "passage"];

/// At most so many fields of a row are named in an error message.
const NAMED_MAX: usize = 16;

/// Refuses a field of `row` that would be silently left out.
pub(super) fn check(source: &DatasetSource, row: &Row) -> Result<(), ModelError> {
    let used = used(source);
    let is_known = |key: &str| {
        used.contains(&key)
            || HARMLESS.contains(&key)
            || source.ignore_fields.iter().any(|ignored| ignored == key)
    };
    match row
        .fields
        .iter()
        .find(|(key, value)| !says_nothing(value) && !is_known(key))
    {
        None => Ok(()),
        Some((key, _)) => Err(row.fail(format!(
            "the field `{key}` is not used by type `{}`: {}, or name it in `ignore_fields`",
            source.kind.name(),
            remedy(source, key)
        ))),
    }
}

/// The error that `row` lacks the field `key`.
pub(super) fn missing(source: &DatasetSource, row: &Row, key: &str) -> ModelError {
    if row.fields.contains_key(key) {
        return row.fail(format!("the field `{key}` is null, not a string"));
    }
    let have = row.fields.keys().map(String::as_str).take(NAMED_MAX);
    let have: Vec<&str> = have.collect();
    let first = |names: &[&'static str]| names.iter().find(|name| have.contains(name)).copied();
    let is_instruct = source.kind == DatasetKind::Instruct;
    let hint = match (first(&ASKING).zip(first(&ANSWERING)), first(&DOCUMENT)) {
        (Some((asks, answers)), _) if is_instruct => {
            format!("; set `field_instruction: {asks}` and `field_output: {answers}`")
        }
        (_, Some(document)) if !is_instruct => format!("; set `field: {document}`"),
        (Some((asks, answers)), _) => format!(
            "; set `type: instruct`, `field_instruction: {asks}` and `field_output: {answers}`"
        ),
        (None, Some(document)) => format!("; set `type: text` and `field: {document}`"),
        (None, None) => have
            .iter()
            .find_map(|name| of_another_shape(name))
            .map_or(String::new(), |remedy| format!("; {remedy}")),
    };
    row.fail(format!(
        "there is no field `{key}`; there are {}{hint}",
        have.join(", ")
    ))
}

/// The fields that the data set reads.
fn used(source: &DatasetSource) -> Vec<&str> {
    match source.kind {
        DatasetKind::Text => vec![&source.field],
        DatasetKind::Instruct => vec![
            &source.field_instruction,
            &source.field_input,
            &source.field_output,
        ],
        DatasetKind::Tokens => Vec::new(),
    }
}

/// Whether a value is empty, so that nothing is lost without it.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn of_another_shape(key: &str) -> Option<&'static str> {
    let found = REMEDIES.iter().find(|(names, _)| names.contains(&key));
    found.map(|(_, remedy)| *remedy)
}

fn remedy(source: &DatasetSource, key: &str) -> String {
    let is_instruct = source.kind == DatasetKind::Instruct;
    match of_another_shape(key) {
        Some(remedy) => remedy.to_string(),
        None if is_instruct && ABOUT.contains(&key) => {
            format!("set `field_input: {key}` to put it behind the instruction")
        }
        None if is_instruct && ASKING.contains(&key) => {
            format!("set `field_instruction: {key}` if it is the instruction")
        }
        None if is_instruct && ANSWERING.contains(&key) => {
            format!("set `field_output: {key}` if it is the answer")
        }
        None if !is_instruct && (ASKING.contains(&key) || ANSWERING.contains(&key)) => {
            "set `type: instruct` if rows are questions and answers".to_string()
        }
        None => "put its text into a field that is, remove it".to_string(),
    }
}
