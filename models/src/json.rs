//! JSON objects of files, in which each key may have only one value.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::ModelError;

/// At most so many characters of a value are shown in a message.
const SHOWN_MAX: usize = 80;

/// Parses an object. A key with two different values is an error at any depth, because a reader
/// would silently ignore one of them.
///
/// # Errors
/// [`ModelError::Json`] with line and column.
pub(crate) fn object(path: &Path, text: &[u8]) -> Result<Map<String, Value>, ModelError> {
    let Once(value) = serde_json::from_slice(text).map_err(ModelError::json(path))?;
    match value {
        Value::Object(object) => Ok(object),
        other => Err(ModelError::Json {
            path: path.to_path_buf(),
            reason: format!("{} is there, where an object must be", shown(&other)),
        }),
    }
}

/// A value as it is shown in a message, truncated where it is long.
pub(crate) fn shown(value: impl ToString) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A value in whose objects no key has two values.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Once)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Once(value))) = entries.next_entry::<String, Once>()? {
            match map.get(&key) {
                Some(first) if *first != value => {
                    return Err(A::Error::custom(format!(
                        "the key `{key}` is there twice, as {} and as {}",
                        shown(first),
                        shown(&value)
                    )));
                }
                _ => drop(map.insert(key, value)),
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Map<String, Value>, ModelError> {
        object(Path::new("x.json"), text.as_bytes())
    }

    #[test]
    fn values_are_what_serde_json_makes_of_them() {
        let text = r#"{"a": [1, -2, 3.5, 1e-05, 18446744073709551615, "\u00e9", null, true, {}],
            "b": {"c": {"d": []}}, "e": false}"#;
        let expected: Map<String, Value> = serde_json::from_str(text).unwrap();
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_message_shows_the_beginning_of_a_long_value() {
        assert_eq!(shown(Value::from("a")), "\"a\"");
        assert_eq!(shown("\u{e9}".repeat(80)), "\u{e9}".repeat(80));
        let cut = format!("{}...", "\u{e9}".repeat(80));
        assert_eq!(shown("\u{e9}".repeat(81)), cut);
    }

    #[test]
    fn a_key_with_two_values_is_refused_at_any_depth() {
        for text in [
            r#"{"a": 1, "b": 0, "a": 2}"#,
            r#"{"b": [{"c": {"a": 1, "a": 1.5}}]}"#,
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("`a` is there twice, as 1 and as"), "{error}");
        }
        assert_eq!(parse(r#"{"a": 1, "a": 1}"#).unwrap().len(), 1);
        let error = parse("[1]").unwrap_err().to_string();
        assert!(error.contains("x.json") && error.contains("[1]"), "{error}");
    }
}
