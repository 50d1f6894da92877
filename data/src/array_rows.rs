//! Rows as one JSON array `[{...}, {...}]`, which may span any number of lines.

use std::io::BufRead;
use std::path::Path;

use crate::error::{DataError, RowPlace};
use crate::json;
use crate::rows::{EachRow, ROW_BYTES_MAX, Row, TOO_LONG, line_ends, skip_space};

/// Of something that is no object, so many bytes are read for the message.
const WRONG_BYTES: usize = 80;

/// Calls `each` for every row. The next byte is the `[`.
pub(crate) fn for_each(
    path: &Path,
    reader: &mut dyn BufRead,
    line: u64,
    each: &mut EachRow,
) -> Result<(), DataError> {
    let mut array = Array { path, reader, line };
    array.reader.consume(1);
    if array.next()? == Some(b']') {
        return array.end();
    }
    loop {
        let Some(first) = array.next()? else {
            return Err(array.fail("the array of rows is cut off"));
        };
        let place = RowPlace::Line(array.line);
        let bytes = match first {
            b'{' => array.object()?,
            _ => array.wrong()?,
        };
        let fields = json::object(&bytes);
        let fields = fields.map_err(|reason| DataError::row(path, place, reason))?;
        let row = Row {
            path,
            place,
            fields,
        };
        if !each(&row)? {
            return Ok(());
        }
        match array.next()? {
            Some(b',') => array.reader.consume(1),
            Some(b']') => return array.end(),
            _ => {
                return Err(
                    array.fail("the rows of an array have a comma between two, and ] at the end")
                );
            }
        }
    }
}

/// An array that is being read.
struct Array<'a> {
    path: &'a Path,
    reader: &'a mut dyn BufRead,
    /// The line of the next byte.
    line: u64,
}

impl Array<'_> {
    /// The next byte that is no white space, which is not read.
    fn next(&mut self) -> Result<Option<u8>, DataError> {
        skip_space(self.reader, &mut self.line).map_err(DataError::io("read", self.path))
    }

    /// The bytes of an object: up to the bracket that closes its first one, or to the end of the
    /// file.
    fn object(&mut self) -> Result<Vec<u8>, DataError> {
        let start = RowPlace::Line(self.line);
        let mut bytes = Vec::new();
        let (mut depth, mut is_text, mut is_escaped) = (0u64, false, false);
        loop {
            let buffer = self
                .reader
                .fill_buf()
                .map_err(DataError::io("read", self.path))?;
            let end = buffer.iter().position(|byte| {
                match (is_text, *byte) {
                    (true, _) if is_escaped => is_escaped = false,
                    (true, b'\\') => is_escaped = true,
                    (_, b'"') => is_text = !is_text,
                    (false, b'{') => depth += 1,
                    (false, b'}') => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            let count = end.map_or(buffer.len(), |end| end + 1);
            bytes.extend_from_slice(&buffer[..count]);
            self.line += line_ends(&buffer[..count]);
            self.reader.consume(count);
            if bytes.len() > ROW_BYTES_MAX {
                return Err(DataError::row(self.path, start, TOO_LONG));
            }
            if end.is_some() || count == 0 {
                return Ok(bytes);
            }
        }
    }

    /// Some bytes of what is no object.
    fn wrong(&mut self) -> Result<Vec<u8>, DataError> {
        let buffer = self
            .reader
            .fill_buf()
            .map_err(DataError::io("read", self.path))?;
        let end = buffer.iter().position(|byte| matches!(byte, b',' | b'\n'));
        let count = end.unwrap_or(buffer.len()).clamp(1, WRONG_BYTES);
        Ok(buffer[..count.min(buffer.len())].to_vec())
    }

    /// Refuses anything after the end of the array.
    fn end(&mut self) -> Result<(), DataError> {
        self.reader.consume(1);
        match self.next()? {
            None => Ok(()),
            Some(_) => Err(self.fail("there is more behind the end of the array")),
        }
    }

    fn fail(&self, reason: &str) -> DataError {
        DataError::row(self.path, RowPlace::Line(self.line), reason)
    }
}
