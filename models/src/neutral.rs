//! Values with which an option of a file changes nothing.

use serde_json::Value;

/// A kind of value that switches an option off. A null always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neutral {
    /// An empty text, list or object.
    Empty,
    /// Only `false`.
    False,
    /// Only `true`.
    True,
    /// 0, or `false`.
    Zero,
    /// 1.
    One,
}

impl Neutral {
    /// Whether `value` is of the kind.
    pub(crate) fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Self::Empty, Value::String(text)) => text.is_empty(),
            (Self::Empty, Value::Array(items)) => items.is_empty(),
            (Self::Empty, Value::Object(items)) => items.is_empty(),
            (Self::False | Self::Zero, Value::Bool(on)) => !on,
            (Self::True, Value::Bool(on)) => *on,
            (Self::Zero, Value::Number(number)) => number.as_f64() == Some(0.0),
            (Self::One, Value::Number(number)) => number.as_f64() == Some(1.0),
            _ => false,
        }
    }
}
