//! Rows as JSON: an object on each line.

use std::io::{BufRead, Read};
use std::path::Path;

use crate::error::{DataError, RowPlace};
use crate::json;
use crate::rows::{EachRow, ROW_BYTES_MAX, Row, TOO_LONG};
use crate::utf8::MARK;

/// Calls `each` for every row, from line `line` on. Blank lines are skipped.
pub(crate) fn for_each(
    path: &Path,
    reader: &mut dyn BufRead,
    line: u64,
    each: &mut EachRow,
) -> Result<(), DataError> {
    let mut bytes = Vec::new();
    for line in line.. {
        let place = RowPlace::Line(line);
        let fail = |reason: String| DataError::row(path, place, reason);
        bytes.clear();
        let mut bounded = (&mut *reader).take(ROW_BYTES_MAX as u64 + 1);
        let count = bounded.read_until(b'\n', &mut bytes);
        if count.map_err(DataError::io("read", path))? == 0 {
            return Ok(());
        }
        if bytes.len() > ROW_BYTES_MAX {
            return Err(fail(TOO_LONG.to_string()));
        }
        // On every line: files that begin with a byte order mark may have been concatenated.
        let text = bytes.strip_prefix(MARK).unwrap_or(&bytes);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let fields = json::object(text).map_err(fail)?;
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
