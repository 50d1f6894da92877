//! `input_output`: a text in segments, each learnt or not. Nothing is added to them: special tokens
//! stand in the segments by their names.

use serde_json::Value;

use crate::error::{DataError, shown};
use crate::example::Example;
use crate::fields;
use crate::maker::ExampleMaker;
use crate::names::SEGMENTS;
use crate::rows::Row;

/// The example of a row.
pub(crate) fn example(maker: &ExampleMaker, row: &Row) -> Result<Example, DataError> {
    let source = maker.source;
    let segments = row.list(SEGMENTS)?;
    let segments = segments.ok_or_else(|| fields::missing(source, row, SEGMENTS))?;
    fields::check(source, row)?;
    let mut example = Example::default();
    for (index, segment) in segments.iter().enumerate() {
        let place = format!("{SEGMENTS}[{index}]");
        let Value::Object(map) = segment else {
            return Err(row.fail(format!(
                "{place} is {}, not {{\"text\": \"...\", \"label\": true}}",
                shown(segment)
            )));
        };
        let known = |key: &&String| ["text", "label"].contains(&key.as_str());
        if let Some(other) = map.keys().find(|key| !known(key)) {
            return Err(row.fail(format!(
                "{place} has the field `{other}`, which is not read; a segment has `text` and \
                 `label`"
            )));
        }
        let wrong = |key: &str, what: &str| {
            let found = map.get(key).map_or("missing".to_string(), shown);
            row.fail(format!(
                "the field `{key}` of {place} is {found}, not {what}"
            ))
        };
        let text = map.get("text").and_then(Value::as_str);
        let text = text.ok_or_else(|| wrong("text", "a string"))?;
        let label = map.get("label").and_then(Value::as_bool);
        let label = label.ok_or_else(|| wrong("label", "true or false"))?;
        fields::refuse_nul(row, &place, segment)?;
        example.add(&maker.tokenizer.encode(text, false)?, label);
    }
    match example.trained() {
        0 => Err(row.fail(format!(
            "no segment has `label` true behind the first token, so there is nothing to learn; \
             remove the row or label one of the {} in `{SEGMENTS}`",
            segments.len()
        ))),
        _ => Ok(example),
    }
}
