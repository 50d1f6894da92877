//! The rows of a data set's files, whatever form these have.

use std::path::{Path, PathBuf};

use crate::chosen::Chosen;
use crate::error::DataError;
use crate::files::{self, FileForm};
use crate::rows::{EachRow, Row, skip_space};
use crate::source::DatasetSource;
use crate::unpack::Unpacked;
use crate::{array_rows, line_rows, separated_rows};

/// The rows of a data set's files. Takes a pass over them.
pub(crate) fn count(source: &DatasetSource, paths: &[PathBuf]) -> Result<u64, DataError> {
    let mut count = 0;
    for_each(source, paths, &Chosen::default(), &mut |_| {}, &mut |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Calls `each` for the rows of a data set's files that are chosen. `progress` is called with bytes
/// that were read. Returns the number of these rows.
pub(crate) fn for_each(
    source: &DatasetSource,
    paths: &[PathBuf],
    chosen: &Chosen,
    progress: &mut dyn FnMut(u64),
    each: &mut dyn FnMut(&Row) -> Result<(), DataError>,
) -> Result<u32, DataError> {
    let (mut count, mut index, most) = (0, 0, chosen.most.unwrap_or(u32::MAX));
    for path in paths {
        let (packing, form) = files::form(path, source.kind);
        if count >= most || chosen.is_over(index) {
            break;
        }
        let mut counted = |row: &Row| {
            if chosen.takes(index) {
                match source.columns.is_empty() {
                    true => each(row)?,
                    false => each(&row.only(&source.columns))?,
                }
                count += 1;
            }
            index += 1;
            Ok(count < most && !chosen.is_over(index))
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
