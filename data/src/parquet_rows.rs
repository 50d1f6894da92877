//! Rows of a .parquet file: columns, read page by page and put together again.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Columns};
use serde_json::{Map, Value};

use crate::error::{DataError, RowPlace};
use crate::rows::{EachRow, ROW_BYTES_MAX, Row, TOO_LONG};

/// Calls `each` for every row.
pub(crate) fn for_each(path: &Path, each: &mut EachRow) -> Result<(), DataError> {
    let broken = |error: parquet::errors::ParquetError| {
        DataError::file(path, format!("not a usable .parquet file: {error}"))
    };
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let rows = reader.get_row_iter(None).map_err(broken)?;
    for (columns, number) in rows.zip(1..) {
        let place = RowPlace::Row(number);
        let fields = fields(columns.map_err(broken)?, 0);
        let fields = fields.map_err(|reason| DataError::row(path, place, reason))?;
        if fields.values().map(bytes).sum::<usize>() > ROW_BYTES_MAX {
            return Err(DataError::row(path, place, TOO_LONG));
        }
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

/// The bytes of the texts of a value, and as many for what is no text as it has in JSON at least.
fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| 1 + bytes(item)).sum(),
        Value::Object(fields) => fields.values().map(|field| 1 + bytes(field)).sum(),
        _ => 1,
    }
}

/// The fields of a row or of a group within one. A column holds null where a group within a row
/// lacks a field that others have; there it is left out.
fn fields(columns: Columns, depth: u32) -> Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    for (name, field) in columns.into_columns() {
        let value = value(field, depth).map_err(|kind| {
            format!(
                "the field `{name}` is {kind}, which is not read: keep texts, numbers and lists"
            )
        })?;
        if fields.contains_key(&name) {
            return Err(format!("the field `{name}` is there twice; keep one"));
        }
        if !(depth > 0 && value.is_null()) {
            fields.insert(name, value);
        }
    }
    Ok(fields)
}

/// A value as JSON.
///
/// # Errors
/// The name of its type, where JSON has none for it.
fn value(field: Field, depth: u32) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => f32::from(value).into(),
        Field::Float(value) => value.into(),
        Field::Double(value) => value.into(),
        Field::Str(text) => text.into(),
        Field::Group(columns) => Value::Object(fields(columns, depth + 1)?),
        Field::ListInternal(list) => {
            let items = list.elements().iter().cloned();
            Value::Array(
                items
                    .map(|item| value(item, depth + 1))
                    .collect::<Result<_, _>>()?,
            )
        }
        Field::Bytes(_) => return Err("bytes".to_string()),
        Field::MapInternal(_) => return Err("a map".to_string()),
        Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => return Ok(Value::String(field.to_string())),
    })
}
