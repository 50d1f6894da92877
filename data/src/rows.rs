//! Rows of a data set: objects with fields, read one at a time, each with its place.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{DataError, RowPlace, shown};
use crate::files::{self, FileForm};
use crate::source::DatasetSource;
use crate::unpack::Unpacked;
use crate::{array_rows, line_rows, separated_rows};

/// A row has at most so many bytes in its file. It is held whole, and its values beside it.
pub(crate) const ROW_BYTES_MAX: usize = 64 << 20;

/// What a row of more bytes is told.
pub(crate) const TOO_LONG: &str =
    "the row is longer than 64 MiB, or its quotes or brackets do not match; make it shorter";

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

    /// The error that this row cannot be used.
    pub fn fail(&self, reason: impl Into<String>) -> DataError {
        DataError::row(self.path, self.place, reason)
    }
}

/// Calls `each` for the rows of a data set's files, at most `most` of them. `progress` is called
/// with bytes that were read. Returns the number of rows.
pub(crate) fn for_each(
    source: &DatasetSource,
    paths: &[PathBuf],
    most: u32,
    progress: &mut dyn FnMut(u64),
    each: &mut dyn FnMut(&Row) -> Result<(), DataError>,
) -> Result<u32, DataError> {
    let mut count = 0;
    for path in paths {
        let (packing, form) = files::form(path, source.kind);
        if count >= most {
            break;
        }
        let mut counted = |row: &Row| {
            each(row)?;
            count += 1;
            Ok(count < most)
        };
        if form == FileForm::Parquet {
            refuse_packed_columns(path, packing)?;
            of_columns(path, &mut counted)?;
            progress(path.metadata().map_or(0, |data| data.len()));
            continue;
        }
        let Unpacked {
            mut reader, read, ..
        } = Unpacked::open(path, packing)?;
        let mut told = |row: &Row| {
            let goes_on = counted(row);
            progress(read.take());
            goes_on
        };
        match form {
            FileForm::Separated(separator) => {
                separated_rows::for_each(path, &mut reader, separator, &mut told)?;
            }
            _ => {
                let mut line = 1;
                let first = skip_space(&mut reader, &mut line);
                match first.map_err(DataError::io("read", path))? {
                    Some(b'[') => array_rows::for_each(path, &mut reader, line, &mut told)?,
                    _ => line_rows::for_each(path, &mut reader, line, &mut told)?,
                }
            }
        }
        progress(read.take());
    }
    Ok(count)
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

#[cfg(feature = "parquet")]
fn of_columns(path: &Path, each: &mut EachRow) -> Result<(), DataError> {
    crate::parquet_rows::for_each(path, each)
}

/// A file of columns is refused by its name in a build that cannot read it.
#[cfg(not(feature = "parquet"))]
fn of_columns(path: &Path, _each: &mut EachRow) -> Result<(), DataError> {
    Err(DataError::file(path, "this build reads no .parquet files"))
}

/// A file of columns is read from its end, which a packed file does not let find.
fn refuse_packed_columns(path: &Path, packing: files::Packing) -> Result<(), DataError> {
    match packing {
        files::Packing::None => Ok(()),
        _ => Err(DataError::file(
            path,
            "a .parquet file is packed within; unpack the outer packing",
        )),
    }
}
