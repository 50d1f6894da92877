//! `${key.path}` in torchtune's files, as OmegaConf replaces it.

use serde_yaml_ng::{Mapping, Value};

use crate::builder::JobBuilder;
use crate::document::Document;

/// How deep a reference may refer to others.
const DEPTH_MAX: usize = 8;

/// Bytes of the longest text that comes out.
const TEXT_BYTES_MAX: usize = 4_096;

/// The same document with its references replaced. What cannot be replaced stays as it is.
pub(crate) fn replaced(document: &Document) -> Document {
    let root: Mapping = document.root().clone();
    let root = root
        .into_iter()
        .map(|(key, value)| (key, value_of(document, value)));
    document.with_root(root.collect())
}

fn value_of(document: &Document, value: Value) -> Value {
    match value {
        Value::String(text) if text.contains("${") => {
            Value::String(text_of(document, text, DEPTH_MAX))
        }
        Value::Mapping(map) => {
            let pairs = map
                .into_iter()
                .map(|(key, value)| (key, value_of(document, value)));
            Value::Mapping(pairs.collect())
        }
        Value::Sequence(items) => Value::Sequence(
            items
                .into_iter()
                .map(|item| value_of(document, item))
                .collect(),
        ),
        other => other,
    }
}

fn text_of(document: &Document, text: String, depth: usize) -> String {
    let Some((before, rest)) = text.split_once("${") else {
        return text;
    };
    let Some((path, after)) = rest.split_once('}') else {
        return text;
    };
    let found = match document.get(path) {
        Some(Value::String(found)) => found.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(flag)) => flag.to_string(),
        _ => return text,
    };
    if depth == 0 || text.len() + found.len() > TEXT_BYTES_MAX {
        return text;
    }
    text_of(document, format!("{before}{found}{after}"), depth - 1)
}

/// Refuses references that are left in values that are used.
pub(crate) fn left(builder: &mut JobBuilder) {
    let is_left = |value: &Value| value.as_str().is_some_and(|text| text.contains("${"));
    let settings = builder
        .out
        .settings
        .iter()
        .filter(|setting| is_left(&setting.value));
    let keys: Vec<String> = settings.map(|setting| setting.source.key.clone()).collect();
    for key in keys {
        builder.problem(
            &key,
            "refers to a key that is not there",
            "write the value out",
            None,
        );
    }
}
