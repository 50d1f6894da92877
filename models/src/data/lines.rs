//! JSON lines: one object per line, with the line number in every error.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ModelError;

/// One line of a `.jsonl` file.
pub(super) struct JsonLine<'a> {
    path: &'a Path,
    number: u64,
    object: Map<String, Value>,
}

impl JsonLine<'_> {
    /// The string at `key`.
    pub(super) fn text(&self, key: &str) -> Result<&str, ModelError> {
        let fail = |reason| ModelError::DatasetLine {
            path: self.path.to_path_buf(),
            line: self.number,
            reason,
        };
        match self.object.get(key) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(fail(format!("the field `{key}` is {other}, not a string"))),
            None => {
                let have: Vec<&str> = self.object.keys().map(String::as_str).collect();
                Err(fail(format!(
                    "there is no field `{key}`; there are {}",
                    have.join(", ")
                )))
            }
        }
    }
}

/// Calls `each` for every line that is not blank.
pub(super) fn for_each(
    path: &Path,
    mut each: impl FnMut(&JsonLine) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let file = File::open(path).map_err(ModelError::io("read", path))?;
    for (number, line) in (1..).zip(BufReader::new(file).split(b'\n')) {
        let line = line.map_err(ModelError::io("read", path))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let object = serde_json::from_slice(&line).map_err(|error| ModelError::DatasetLine {
            path: path.to_path_buf(),
            line: number,
            reason: format!("not a JSON object: {}", within_line(&error)),
        })?;
        each(&JsonLine {
            path,
            number,
            object,
        })?;
    }
    Ok(())
}

/// The parser counts lines within what it was given, which is always line 1: keep the column.
fn within_line(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match words.strip_suffix(&place) {
        Some(words) => format!("{words} at column {}", error.column()),
        None => words,
    }
}
