//! Rows of a data set: objects with fields, read one at a time, each with its place.

use std::io::{self, BufRead};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{DataError, RowPlace, shown};

/// A row has at most so many bytes in its file. It is held whole, and its values beside it.
pub(crate) const ROW_BYTES_MAX: usize = 16 << 20;

/// What a row of more bytes is told.
pub(crate) const TOO_LONG: &str =
    "the row is longer than 16 MiB, or its quotes or brackets do not match; make it shorter";

/// One row.
pub(crate) struct Row<'a> {
    pub path: &'a Path,
    pub place: RowPlace,
    /// Its fields; keys are unique.
    pub fields: Map<String, Value>,
}

/// What reads rows: called with each; whether more are wanted.
pub(crate) type EachRow<'a> = dyn FnMut(&Row) -> Result<bool, DataError> + 'a;

impl Row<'_> {
    /// The text of `key`; `None` where the field is absent or null.
    pub fn text(&self, key: &str) -> Result<Option<&str>, DataError> {
        match self.fields.get(key) {
            Some(Value::String(text)) if text.contains('\0') => {
                Err(self.fail(format!("the field `{key}` has a NUL character")))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Null) | None => Ok(None),
            Some(other) => Err(self.fail(format!(
                "the field `{key}` is {}, not a string",
                shown(other)
            ))),
        }
    }

    /// The list of `key`, also where it is JSON in a text, as in files of columns; `None` where
    /// the field is absent or null.
    pub fn list(&self, key: &str) -> Result<Option<Vec<Value>>, DataError> {
        let not_a_list =
            |value: &Value| self.fail(format!("the field `{key}` is {}, not a list", shown(value)));
        match self.fields.get(key) {
            Some(Value::Null) | None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list.clone())),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(value @ Value::String(text)) => {
                // By itself first: what stands behind the list must not become fields beside it.
                if !matches!(serde_json::from_str(text), Ok(Value::Array(_))) {
                    return Err(not_a_list(value));
                }
                let wrapped = format!("{{\"list\":{text}}}");
                let parsed = crate::json::object(wrapped.as_bytes());
                match parsed.ok().and_then(|mut parsed| parsed.remove("list")) {
                    Some(Value::Array(list)) => Ok(Some(list)),
                    _ => Err(not_a_list(value)),
                }
            }
            Some(other) => Err(not_a_list(other)),
        }
    }

    /// The same row with these of its fields alone.
    pub fn only(&self, columns: &[String]) -> Row<'_> {
        let fields = columns
            .iter()
            .filter_map(|key| self.fields.get_key_value(key));
        Row {
            path: self.path,
            place: self.place,
            fields: fields
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }

    /// The error that this row cannot be used.
    pub fn fail(&self, reason: impl Into<String>) -> DataError {
        DataError::row(self.path, self.place, reason)
    }
}

/// Skips white space, counts the lines that it ends, and gives the byte behind it, which is not
/// read.
pub(crate) fn skip_space(reader: &mut dyn BufRead, line: &mut u64) -> io::Result<Option<u8>> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let rest = bytes.trim_ascii_start();
        let (count, first) = (bytes.len() - rest.len(), rest.first().copied());
        *line += line_ends(&bytes[..count]);
        reader.consume(count);
        if first.is_some() {
            return Ok(first);
        }
    }
}

/// How many lines end in some bytes.
pub(crate) fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
