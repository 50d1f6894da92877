//! The typed values of a GGUF file's metadata. Lists stay in the file, and are read on demand.

use super::cursor::Cursor;

/// The deepest nesting of lists that is accepted; known programs do not nest them at all.
const DEPTH_MAX: usize = 4;

/// A value of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum GgufValue<'a> {
    Unsigned(u64),
    Signed(i64),
    Float32(f32),
    Float64(f64),
    Bool(bool),
    /// Bytes that should be UTF-8.
    Text(&'a [u8]),
    List(GgufList<'a>),
}

/// A list whose elements are read one by one from the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct GgufList<'a> {
    kind: u32,
    count: u64,
    bytes: &'a [u8],
}

impl<'a> GgufValue<'a> {
    /// Reads a value of the type `kind`. The elements of a list are only skipped.
    ///
    /// # Errors
    /// Half a sentence, where the type is unknown or the file ends.
    pub(super) fn read(cursor: &mut Cursor<'a>, kind: u32) -> Result<Self, String> {
        Self::read_nested(cursor, kind, 0)
    }

    fn read_nested(cursor: &mut Cursor<'a>, kind: u32, depth: usize) -> Result<Self, String> {
        Ok(match kind {
            0 => Self::Unsigned(u64::from(u8::from_le_bytes(cursor.array()?))),
            1 => Self::Signed(i64::from(i8::from_le_bytes(cursor.array()?))),
            2 => Self::Unsigned(u64::from(u16::from_le_bytes(cursor.array()?))),
            3 => Self::Signed(i64::from(i16::from_le_bytes(cursor.array()?))),
            4 => Self::Unsigned(u64::from(u32::from_le_bytes(cursor.array()?))),
            5 => Self::Signed(i64::from(i32::from_le_bytes(cursor.array()?))),
            6 => Self::Float32(f32::from_le_bytes(cursor.array()?)),
            7 => match cursor.array()? {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                [other] => return Err(format!("is {other}, where 0 or 1 must be (bool)")),
            },
            8 => Self::Text(cursor.text()?),
            9 => Self::List(GgufList::read(cursor, depth)?),
            10 => Self::Unsigned(u64::from_le_bytes(cursor.array()?)),
            11 => Self::Signed(i64::from_le_bytes(cursor.array()?)),
            12 => Self::Float64(f64::from_le_bytes(cursor.array()?)),
            other => return Err(format!("has the type {other}, which is none of GGUF")),
        })
    }

    /// A whole number, of whatever type.
    pub(super) fn whole(self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(number),
            Self::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    /// A text, if it is UTF-8.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The value as it is shown in a message.
    pub(super) fn shown(self) -> String {
        match self {
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::Float32(number) => number.to_string(),
            Self::Float64(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Text(bytes) => {
                crate::json::shown(format!("{:?}", String::from_utf8_lossy(bytes)))
            }
            Self::List(list) => format!("a list of {}", list.count),
        }
    }
}

impl<'a> GgufList<'a> {
    fn read(cursor: &mut Cursor<'a>, depth: usize) -> Result<Self, String> {
        if depth >= DEPTH_MAX {
            return Err(format!("has lists in lists, more than {DEPTH_MAX} deep"));
        }
        let kind = u32::from_le_bytes(cursor.array()?);
        let count = u64::from_le_bytes(cursor.array()?);
        let start = *cursor;
        match width(kind) {
            Some(width) => {
                let bytes = count.checked_mul(width);
                let bytes = bytes.ok_or_else(|| format!("is a list of {count} elements"))?;
                cursor.skip(bytes)?;
            }
            // Every element takes at least a byte, so a false count ends with the file.
            None => {
                for _ in 0..count {
                    GgufValue::read_nested(cursor, kind, depth + 1)?;
                }
            }
        }
        Ok(Self {
            kind,
            count,
            bytes: start.until(cursor),
        })
    }

    /// How many elements it has.
    pub(super) fn len(self) -> u64 {
        self.count
    }

    /// Its elements. They were checked when the list was skipped, so reading them cannot fail.
    pub(super) fn values(self) -> impl Iterator<Item = GgufValue<'a>> {
        let mut cursor = Cursor::new(self.bytes);
        (0..self.count).map_while(move |_| GgufValue::read(&mut cursor, self.kind).ok())
    }
}

/// Bytes of a value, if all of its type have equally many. Not for bool, whose bytes are checked.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
