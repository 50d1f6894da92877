//! Rows of a data set: JSON lines, or one JSON array of objects, with the line in every error.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::utf8::{MARK, refuse_utf16};
use crate::error::ModelError;
use crate::json::shown;

/// One row: a JSON object.
pub(super) struct Row<'a> {
    path: &'a Path,
    /// The line on which it begins, from 1.
    line: u64,
    /// Its fields; keys are unique.
    pub(super) fields: Map<String, Value>,
}

impl Row<'_> {
    /// The text of `key`; `None` where the field is absent or null.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
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

    /// The error that this row cannot be used.
    pub(super) fn fail(&self, reason: impl Into<String>) -> ModelError {
        line_error(self.path, self.line, reason)
    }
}

/// Calls `each` for every row, with its length in bytes. Blank lines are skipped.
pub(super) fn for_each(
    path: &Path,
    mut each: impl FnMut(&Row, usize) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let file = File::open(path).map_err(ModelError::io("read", path))?;
    let mut reader = BufReader::new(file);
    let head = reader.fill_buf().map_err(ModelError::io("read", path))?;
    refuse_utf16(head).map_err(|reason| line_error(path, 1, reason))?;
    let text = head.strip_prefix(MARK).unwrap_or(head);
    if text.trim_ascii_start().starts_with(b"[") {
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(ModelError::io("read", path))?;
        return of_array(path, &bytes, &mut each);
    }
    for (number, line) in (1..).zip(reader.split(b'\n')) {
        let line = line.map_err(ModelError::io("read", path))?;
        // On every line: files that begin with a byte order mark may have been concatenated.
        let text = line.strip_prefix(MARK).unwrap_or(&line);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let object = serde_json::from_slice(text)
            .map_err(|error| line_error(path, number, not_an_object(&error)))?;
        each(&row(path, number, object)?, line.len() + 1)?;
    }
    Ok(())
}

/// The rows of a JSON array `[{...}, {...}]`, which may span any number of lines.
fn of_array(
    path: &Path,
    bytes: &[u8],
    each: &mut impl FnMut(&Row, usize) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let mut place = Place { bytes, at: 0 };
    if bytes.starts_with(MARK) {
        place.at = MARK.len();
    }
    place.skip(b'[');
    if place.skip(b']') {
        return place.end(path);
    }
    loop {
        place.skip_space();
        let (line, start) = (place.line(), place.at);
        let mut values = serde_json::Deserializer::from_slice(&bytes[start..]).into_iter();
        let object = match values.next() {
            Some(Ok(object)) => object,
            Some(Err(error)) => return Err(line_error(path, line, not_an_object(&error))),
            None => return Err(line_error(path, line, "the array of rows is cut off")),
        };
        place.at = start + values.byte_offset();
        each(&row(path, line, object)?, place.at - start)?;
        if place.skip(b',') {
            continue;
        }
        if place.skip(b']') {
            return place.end(path);
        }
        let line = place.line();
        return Err(line_error(
            path,
            line,
            "the rows of an array have a comma between two, and ] at the end",
        ));
    }
}

/// A position in the bytes of an array.
struct Place<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Place<'_> {
    fn skip_space(&mut self) {
        let rest = &self.bytes[self.at..];
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    /// Skips white space, then `byte` if it comes next. Whether it did.
    fn skip(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// Refuses anything after the end of the array.
    fn end(&mut self, path: &Path) -> Result<(), ModelError> {
        self.skip_space();
        match self.at == self.bytes.len() {
            true => Ok(()),
            false => Err(line_error(
                path,
                self.line(),
                "there is more behind the end of the array",
            )),
        }
    }

    fn line(&self) -> u64 {
        let before = &self.bytes[..self.at];
        1 + before.iter().filter(|byte| **byte == b'\n').count() as u64
    }
}

fn row(path: &Path, line: u64, object: Object) -> Result<Row<'_>, ModelError> {
    let row = Row {
        path,
        line,
        fields: object.fields,
    };
    match object.twice {
        None => Ok(row),
        Some(key) => Err(row.fail(format!("the field `{key}` is there twice; keep one"))),
    }
}

/// A JSON object that reports a duplicate key, where a plain map would silently keep the last.
struct Object {
    fields: Map<String, Value>,
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object such as {\"text\": \"...\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let (mut fields, mut twice) = (Map::new(), None);
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if fields.insert(key.clone(), value).is_some() {
                        twice.get_or_insert(key);
                    }
                }
                Ok(Object { fields, twice })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

fn line_error(path: &Path, line: u64, reason: impl Into<String>) -> ModelError {
    ModelError::DatasetLine {
        path: path.to_path_buf(),
        line,
        reason: reason.into(),
    }
}

/// serde_json's message without its line, which counts from the start of the row. The column is
/// kept on line 1, where it is that of the file.
fn not_an_object(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let words = match (words.strip_suffix(&place), error.line()) {
        (Some(words), 1) => format!("{words} at column {}", error.column()),
        (Some(words), below) => format!("{words}, {} lines below", below.saturating_sub(1)),
        (None, _) => words,
    };
    let hint = match error.is_eof() {
        true => "; a row is a whole object on one line, or all rows are one array [...]",
        false => "",
    };
    format!("not a JSON object: {words}{hint}")
}
