//! Rows of a .csv or .tsv file, as RFC 4180 has them: the first line names the fields; a field in
//! double quotes may hold separators, line ends, and quotes as two.
//!
//! A reader of our own, because those at hand take a quote that is never closed, or text behind a
//! closed one, without a word.

use std::io::BufRead;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{DataError, RowPlace};
use crate::rows::{EachRow, ROW_BYTES_MAX, Row, TOO_LONG};

/// A file has at most so many fields.
const FIELDS_MAX: usize = 4_096;

/// Calls `each` for every row. Lines without anything are skipped.
pub(crate) fn for_each(
    path: &Path,
    reader: &mut dyn BufRead,
    separator: u8,
    each: &mut EachRow,
) -> Result<(), DataError> {
    let mut records = Records {
        path,
        reader,
        separator,
        line: 1,
    };
    let Some((place, names)) = records.next()? else {
        return Ok(());
    };
    check_names(&names).map_err(|reason| DataError::row(path, place, reason))?;
    while let Some((place, values)) = records.next()? {
        if values.len() != names.len() {
            return Err(DataError::row(
                path,
                place,
                format!(
                    "it has {} fields, but the first line names {}; put a text with separators \
                     or line ends into double quotes",
                    values.len(),
                    names.len()
                ),
            ));
        }
        let values = values.into_iter().map(Value::String);
        let fields: Map<String, Value> = names.iter().cloned().zip(values).collect();
        let row = Row {
            path,
            place,
            fields,
        };
        if !each(&row)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Refuses fields without a name, and two of one name.
fn check_names(names: &[String]) -> Result<(), String> {
    for (index, name) in names.iter().enumerate() {
        if name.trim().is_empty() {
            return Err(format!(
                "field {} has no name; the first line names the fields",
                index + 1
            ));
        }
        if names[..index].contains(name) {
            return Err(format!("the field `{name}` is there twice; keep one"));
        }
    }
    Ok(())
}

struct Records<'a> {
    path: &'a Path,
    reader: &'a mut dyn BufRead,
    separator: u8,
    /// The line of the next byte.
    line: u64,
}

/// Where a byte of a record stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a field.
    Start,
    /// In a field without quotes.
    Bare,
    /// Between the quotes of a field.
    Quoted,
    /// Behind a quote in a field in quotes: its end, or the first half of two.
    Closed,
    /// Behind a field in quotes and the first half of a line end.
    ClosedLine,
}

const BEHIND_QUOTE: &str = "there is text behind the closing quote of a field; write quotes within \
                            a field as two";

/// A record in the making.
struct Record {
    fields: Vec<Vec<u8>>,
    state: State,
    bytes: usize,
}

impl Record {
    fn new() -> Self {
        Self {
            fields: vec![Vec::new()],
            state: State::Start,
            bytes: 0,
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(field) = self.fields.last_mut() {
            field.push(byte);
        }
    }

    /// Takes a byte; whether it ends the record.
    fn take(&mut self, byte: u8, separator: u8) -> Result<bool, &'static str> {
        self.bytes += 1;
        match (self.state, byte) {
            (State::Start, b'"') => self.state = State::Quoted,
            (State::Quoted, b'"') => self.state = State::Closed,
            (State::Quoted, _) => self.push(byte),
            (State::Closed, b'"') => {
                self.push(b'"');
                self.state = State::Quoted;
            }
            (State::ClosedLine, byte) if byte != b'\n' => return Err(BEHIND_QUOTE),
            (_, b'\n') => return Ok(true),
            (_, _) if byte == separator => {
                if self.fields.len() >= FIELDS_MAX {
                    return Err("it has too many fields");
                }
                self.fields.push(Vec::new());
                self.state = State::Start;
            }
            // The first half of a line end: nothing but the other half may follow.
            (State::Closed, b'\r') => self.state = State::ClosedLine,
            (State::Closed | State::ClosedLine, _) => return Err(BEHIND_QUOTE),
            (State::Start | State::Bare, _) => {
                self.push(byte);
                self.state = State::Bare;
            }
        }
        Ok(false)
    }

    /// Whether the line had nothing in it.
    fn is_blank(&self) -> bool {
        let is_empty = |field: &Vec<u8>| field.is_empty() || field == b"\r";
        let is_quoted = matches!(self.state, State::Closed | State::ClosedLine);
        self.fields.len() == 1 && !is_quoted && is_empty(&self.fields[0])
    }

    fn texts(mut self) -> Result<Vec<String>, &'static str> {
        if self.state == State::Bare
            && let Some(last) = self.fields.last_mut()
            && last.ends_with(b"\r")
        {
            last.pop();
        }
        let texts = self.fields.into_iter().map(String::from_utf8);
        let texts: Result<Vec<String>, _> = texts.collect();
        texts.map_err(|_| "it is not UTF-8 text; save the file as UTF-8")
    }
}

impl Records<'_> {
    /// The next record that has something in it, and its place.
    fn next(&mut self) -> Result<Option<(RowPlace, Vec<String>)>, DataError> {
        loop {
            let place = RowPlace::Line(self.line);
            let fail = |reason: &str| DataError::row(self.path, place, reason);
            let mut record = Record::new();
            let is_last = self.fill(&mut record).map_err(|error| match error {
                Stop::Io(error) => DataError::io("read", self.path)(error),
                Stop::Bad(reason) => fail(reason),
            })?;
            match (record.is_blank(), is_last) {
                (true, true) => return Ok(None),
                (true, false) => {}
                (false, _) => return Ok(Some((place, record.texts().map_err(fail)?))),
            }
        }
    }

    /// Reads a record; whether the file ends with it.
    fn fill(&mut self, record: &mut Record) -> Result<bool, Stop> {
        loop {
            let buffer = self.reader.fill_buf().map_err(Stop::Io)?;
            if buffer.is_empty() {
                return match record.state {
                    State::Quoted => Err(Stop::Bad(
                        "its last field has an opening quote and no closing one",
                    )),
                    _ => Ok(true),
                };
            }
            let (mut count, mut is_whole) = (0, false);
            for byte in buffer {
                count += 1;
                self.line += u64::from(*byte == b'\n');
                is_whole = record.take(*byte, self.separator).map_err(Stop::Bad)?;
                if is_whole {
                    break;
                }
            }
            self.reader.consume(count);
            if record.bytes > ROW_BYTES_MAX {
                return Err(Stop::Bad(TOO_LONG));
            }
            if is_whole {
                return Ok(false);
            }
        }
    }
}

/// Why a record is not read to its end.
enum Stop {
    Io(std::io::Error),
    Bad(&'static str),
}
