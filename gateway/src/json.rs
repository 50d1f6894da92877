//! Strict reading of JSON: a wrong type, a value out of bounds or a parameter that nobody knows is a
//! 400 that names the field. Fields that nobody knows within objects are told ([`Ignored`]).

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::api_error::ApiError;
use crate::ignored::Ignored;

/// The value in `bytes`, which may nest `depth` deep.
///
/// # Errors
/// A 400 that says what is wrong.
pub(crate) fn parse(bytes: &[u8], depth: usize) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::invalid(format!("The body is no UTF-8: byte {at} is wrong."))
    })?;
    // Before the parser, which recurses.
    if nests_deeper(text.as_bytes(), depth) {
        let message = format!("The body nests deeper than {depth} levels.");
        return Err(ApiError::invalid(message));
    }
    serde_json::from_str(text)
        .map_err(|error| ApiError::invalid(format!("The body is no JSON: {error}.")))
}

fn nests_deeper(bytes: &[u8], depth: usize) -> bool {
    let (mut level, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                level += 1;
                if level > depth {
                    return true;
                }
            }
            b']' | b'}' if !in_text => level = level.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// An object, field by field. What was taken is gone; what is left in the end is unknown.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// Where the object is: empty, or such as "messages[2]".
    at: String,
}

impl Fields {
    /// The object `value`, which stands at `at`.
    pub fn new(value: Value, at: impl Into<String>) -> Result<Self, ApiError> {
        let at = at.into();
        match value {
            Value::Object(map) => Ok(Self { map, at }),
            other if at.is_empty() => Err(ApiError::invalid(format!(
                "The body has to be a JSON object, and is {}.",
                kind(&other)
            ))),
            other => Err(wrong(&at, "an object", &other)),
        }
    }

    /// The name of a field, for errors.
    pub fn path(&self, name: &str) -> String {
        match self.at.as_str() {
            "" => name.to_string(),
            at => format!("{at}.{name}"),
        }
    }

    /// A field; null is the same as none.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", &other)),
        }
    }

    /// A text that has to be there.
    pub fn required_text(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// True or false.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(&self.path(name), "a boolean", &other)),
        }
    }

    /// A number within bounds.
    pub fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        let path = self.path(name);
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value.as_f64();
        let number = number.ok_or_else(|| wrong(&path, "a number", &value))?;
        if range.contains(&number) {
            return Ok(Some(number));
        }
        let (low, high) = range.into_inner();
        let message = format!("'{path}' has to be within {low} and {high}, and is {number}.");
        Err(ApiError::param(path, message))
    }

    /// A whole number within bounds.
    pub fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let path = self.path(name);
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        if value.as_f64().is_none_or(|number| number.fract() != 0.0) {
            return Err(wrong(&path, "an integer", &value));
        }
        // 1.0 is an integer too, in JSON. A number beyond i64 is out of bounds in any case.
        let number = value.as_f64().unwrap_or(f64::MAX);
        let number = value.as_i64().unwrap_or(number as i64);
        if value.is_u64() && value.as_i64().is_none() || !range.contains(&number) {
            let (low, high) = range.into_inner();
            let message = format!("'{path}' has to be within {low} and {high}, and is {value}.");
            return Err(ApiError::param(path, message));
        }
        Ok(Some(number))
    }

    /// An array of at most `most` values.
    pub fn list(&mut self, name: &str, most: usize) -> Result<Option<Vec<Value>>, ApiError> {
        let path = self.path(name);
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() > most => {
                let message = format!("'{path}' has {} items: at most {most}.", list.len());
                Err(ApiError::param(path, message))
            }
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(wrong(&path, "an array", &other)),
        }
    }

    /// An object.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        let path = self.path(name);
        let value = self.take(name);
        value.map(|value| Self::new(value, path)).transpose()
    }

    /// An object, as it is.
    pub fn map(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        Ok(self.object(name)?.map(|fields| fields.map))
    }

    /// Drops what nobody took of an object within a request, and notes it: it can change no answer,
    /// because only what was taken goes on from here. What may mean something was taken before, or
    /// refused by name.
    pub fn ignore_rest(self, ignored: &mut Ignored) {
        for (name, _) in self.map.iter().filter(|(_, value)| !value.is_null()) {
            ignored.add(&self.path(name));
        }
    }

    /// Refuses a field, unless its value is the one that nothing would mean too.
    pub fn refuse(&mut self, name: &str, default: &Value) -> Result<(), ApiError> {
        match self.take(name) {
            None => Ok(()),
            Some(value) if same(&value, default) => Ok(()),
            Some(_) => {
                let path = self.path(name);
                let message = match default {
                    Value::Null => format!("'{path}' is not supported here: leave it out."),
                    _ => format!("'{path}' is not supported here, except as {default}."),
                };
                Err(ApiError::param(path, message).code("unsupported_parameter"))
            }
        }
    }

    /// What to say of a field that has to be there.
    pub fn missing(&self, name: &str) -> ApiError {
        let path = self.path(name);
        let message = format!("'{path}' is missing.");
        ApiError::param(path, message).code("missing_required_parameter")
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), ApiError> {
        let unknown = self.map.iter().find(|(_, value)| !value.is_null());
        let Some((name, _)) = unknown else {
            return Ok(());
        };
        let path: String = self.path(name).chars().take(200).collect();
        let message = format!("'{path}' is not known here: leave it out.");
        Err(ApiError::param(path, message).code("unknown_parameter"))
    }
}

/// Numbers by value: 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// What to say of a value of a wrong type.
pub(crate) fn wrong(path: &str, expected: &str, found: &Value) -> ApiError {
    let message = format!("'{path}' has to be {expected}, and is {}.", kind(found));
    ApiError::param(path, message).code("invalid_type")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
