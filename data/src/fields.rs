//! Which fields of a row a type of data set uses. Every other field must be known to hold nothing
//! to learn, or be named in the job's `ignore_fields`; else it is refused.

use serde_json::Value;

use crate::error::DataError;
use crate::names::{ATTENTION, HISTORY, IDS, LABELS, SEGMENTS, SYSTEM, TOOLS};
use crate::rows::Row;
use crate::source::{DatasetKind, DatasetSource};

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
const REMEDIES: [(&[&str], &str); 9] = [
    (&["messages"], "set `type: chat_template`"),
    (&["conversations"], "set `type: sharegpt`"),
    (
        &["conversation", "dialog", "dialogue", "turns"],
        "set `type: chat_template` and `field_messages` to it",
    ),
    (
        &["system", "history"],
        "set `type: alpaca_turns`, which makes turns of them, or put its text into the instruction",
    ),
    (
        &["chosen", "rejected", "preferred", "completions"],
        "preferences are not trained on: write the better answer as the output",
    ),
    (
        &["tools", "functions", "tool_calls"],
        "tools are read with `type: chat_template` in a field `tools`",
    ),
    (
        &["image", "images", "audio", "audios", "video", "videos"],
        "only text is trained on",
    ),
    (
        &["input_ids", "attention_mask", "labels"],
        "token ids are read with `type: tokens`",
    ),
    (&["segments"], "set `type: input_output`"),
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
pub(crate) fn check(source: &DatasetSource, row: &Row) -> Result<(), DataError> {
    let used = used(source);
    let is_known = |key: &str| {
        used.contains(&key)
            || HARMLESS.contains(&key)
            || source.ignore_fields.iter().any(|name| name == key)
    };
    let fields = row.fields.iter();
    let unknown = fields.filter(|(key, value)| !says_nothing(value) && !is_known(key));
    let unknown: Vec<&str> = unknown.map(|(key, _)| key.as_str()).collect();
    let Some(first) = unknown.first() else {
        return Ok(());
    };
    let kind = source.kind.name();
    // All at once, so that one line of the job file mends it.
    let list = unknown[..unknown.len().min(NAMED_MAX)].join(", ");
    Err(row.fail(match unknown.len() {
        1 => format!(
            "the field `{first}` is not used by type `{kind}`: {}, or name it in `ignore_fields`",
            remedy(source, first)
        ),
        count => format!(
            "{count} fields are not used by type `{kind}`: {list}; `{first}`: {}; or leave them \
             out by `ignore_fields: [{list}]`",
            remedy(source, first)
        ),
    }))
}

/// The error that `row` lacks the field `key`.
pub(crate) fn missing(source: &DatasetSource, row: &Row, key: &str) -> DataError {
    if row.fields.contains_key(key) {
        let what = match source.kind {
            DatasetKind::InputOutput | DatasetKind::Tokens => "a list",
            kind if kind.has_messages() => "a list of messages",
            _ => "a string",
        };
        return row.fail(format!("the field `{key}` is null, not {what}"));
    }
    let have = row.fields.keys().map(String::as_str).take(NAMED_MAX);
    let have: Vec<&str> = have.collect();
    let first = |names: &[&'static str]| names.iter().find(|name| have.contains(name)).copied();
    let asks = first(&ASKING).zip(first(&ANSWERING));
    let other = have.iter().find_map(|name| of_another_shape(name));
    let hint = match (asks, other, first(&DOCUMENT)) {
        (Some((asks, answers)), _, _) if source.kind.has_instruction() => {
            format!("; set `field_instruction: {asks}` and `field_output: {answers}`")
        }
        (_, _, Some(document)) if has_document(source.kind) => format!("; set `field: {document}`"),
        (_, _, Some(list)) if source.kind.has_messages() && is_list(row, list) => {
            format!("; set `field_messages: {list}`")
        }
        (Some((asks, answers)), _, _) => format!(
            "; set `type: instruct`, `field_instruction: {asks}` and `field_output: {answers}`"
        ),
        (None, Some(remedy), _) => format!("; {remedy}"),
        (None, None, Some(document)) => format!("; set `type: text` and `field: {document}`"),
        (None, None, None) => String::new(),
    };
    row.fail(format!(
        "there is no field `{key}`; there are {}{hint}",
        have.join(", ")
    ))
}

fn has_document(kind: DatasetKind) -> bool {
    matches!(kind, DatasetKind::Text | DatasetKind::Completion)
}

fn is_list(row: &Row, key: &str) -> bool {
    matches!(row.fields.get(key), Some(Value::Array(_)))
}

impl DatasetSource {
    /// The fields of rows that it reads.
    pub fn fields(&self) -> Vec<&str> {
        used(self)
    }
}

fn used(source: &DatasetSource) -> Vec<&str> {
    let instruction = &source.field_instruction;
    let (input, output) = (&source.field_input, &source.field_output);
    match source.kind {
        DatasetKind::Text | DatasetKind::Completion => vec![&source.field],
        DatasetKind::Instruct | DatasetKind::Alpaca => vec![instruction, input, output],
        DatasetKind::AlpacaTurns => vec![instruction, input, output, SYSTEM, HISTORY],
        DatasetKind::ChatTemplate => vec![&source.field_messages, TOOLS],
        DatasetKind::ShareGpt => vec![&source.field_messages, TOOLS, SYSTEM],
        DatasetKind::PromptCompletion => vec![instruction, output, TOOLS],
        DatasetKind::InputOutput => vec![SEGMENTS],
        DatasetKind::Tokens => vec![IDS, LABELS, ATTENTION],
    }
}

/// Refuses a value with a NUL character in one of its texts.
pub(crate) fn refuse_nul(row: &Row, place: &str, value: &Value) -> Result<(), DataError> {
    match has_nul(value) {
        true => Err(row.fail(format!("{place} has a NUL character"))),
        false => Ok(()),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => {
            let mut fields = fields.iter();
            fields.any(|(key, value)| key.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether a value is empty, so that nothing is lost without it.
pub(crate) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What to do about a field that belongs to data of another shape.
pub(crate) fn of_another_shape(key: &str) -> Option<&'static str> {
    let found = REMEDIES.iter().find(|(names, _)| names.contains(&key));
    found.map(|(_, remedy)| *remedy)
}

fn remedy(source: &DatasetSource, key: &str) -> String {
    let asks = source.kind.has_instruction();
    match of_another_shape(key) {
        Some(remedy) => remedy.to_string(),
        None if source.kind.has_input() && ABOUT.contains(&key) => {
            format!("set `field_input: {key}` to put it behind the instruction")
        }
        None if asks && ASKING.contains(&key) => {
            format!("set `field_instruction: {key}` if it is the instruction")
        }
        None if asks && ANSWERING.contains(&key) => {
            format!("set `field_output: {key}` if it is the answer")
        }
        None if !asks && (ASKING.contains(&key) || ANSWERING.contains(&key)) => {
            "set `type: instruct` if rows are questions and answers".to_string()
        }
        None => "put its text into a field that is, remove it".to_string(),
    }
}
