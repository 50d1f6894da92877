//! Strict reading of JSON, by the tables of [`crate::fields`]: a wrong type, a value out of bounds
//! or an unknown parameter is a 400 that names the field. Unknown fields of objects within a
//! request change nothing and are listed in the response ([`Ignored`]).

use serde_json::{Map, Value};

use crate::api_error::ApiError;
use crate::code::Code;
use crate::fields::{self, Accepts, Effects, Items, Table};
use crate::ignored::Ignored;
use crate::options::Limits;

/// Parses the value in `bytes`, which may nest `depth` deep.
///
/// # Errors
/// A 400 that says what is wrong.
pub(crate) fn parse(bytes: &[u8], depth: usize) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::invalid(format!("The body is no UTF-8: byte {at} is wrong."))
    })?;
    // Checked before the parser runs, because it recurses.
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

/// An object that is read field by field, by the table of its fields. Taken fields are removed;
/// those that are left at the end are unknown.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    table: Table,
    /// The path of the object: empty for the body, or such as "messages[2]".
    at: String,
}

impl Fields {
    /// The object `value` at the path `at`, which may have the fields of `table`.
    ///
    /// # Errors
    /// A 400 where it is no object.
    pub fn new(value: Value, at: impl Into<String>, table: Table) -> Result<Self, ApiError> {
        let at = at.into();
        match value {
            Value::Object(map) => Ok(Self { map, table, at }),
            other if at.is_empty() => Err(ApiError::invalid(format!(
                "The body has to be a JSON object, and is {}.",
                kind(&other)
            ))),
            other => Err(wrong(&at, "an object", &other)),
        }
    }

    /// The path of a field, for errors.
    pub fn path(&self, name: &str) -> String {
        match self.at.as_str() {
            "" => name.to_string(),
            at => format!("{at}.{name}"),
        }
    }

    /// Takes a field; null counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field, with what its table accepts; `None` where it is absent.
    fn given(&mut self, name: &str) -> Result<Option<(Value, Accepts)>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let field = fields::find(self.table, name).ok_or_else(|| self.bug(name))?;
        Ok(Some((value, field.takes)))
    }

    /// The error for a field that is read as another type than its table says.
    fn bug(&self, name: &str) -> ApiError {
        let path = self.path(name);
        ApiError::server(format!(
            "The gateway has a bug, please report it: '{path}' has no row."
        ))
    }

    /// Takes a text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.given(name)? {
            None => Ok(None),
            Some((Value::String(text), Accepts::Text)) => Ok(Some(text)),
            Some((other, Accepts::Text)) => Err(wrong(&self.path(name), "a string", &other)),
            Some(_) => Err(self.bug(name)),
        }
    }

    /// Takes a text that must be there.
    pub fn required_text(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// Takes a boolean.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.given(name)? {
            None => Ok(None),
            Some((Value::Bool(flag), Accepts::Flag)) => Ok(Some(flag)),
            Some((other, Accepts::Flag)) => Err(wrong(&self.path(name), "a boolean", &other)),
            Some(_) => Err(self.bug(name)),
        }
    }

    /// Takes a number within the bounds of its table.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        let path = self.path(name);
        let (value, low, high) = match self.given(name)? {
            None => return Ok(None),
            Some((value, Accepts::Number(low, high))) => (value, low, high),
            Some(_) => return Err(self.bug(name)),
        };
        let number = value.as_f64();
        let number = number.ok_or_else(|| wrong(&path, "a number", &value))?;
        if (low..=high).contains(&number) {
            return Ok(Some(number));
        }
        let message = format!("'{path}' has to be within {low} and {high}, and is {number}.");
        Err(ApiError::param(path, message))
    }

    /// Takes an integer within the bounds of its table.
    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.given(name)? {
            None => Ok(None),
            Some((value, Accepts::Integer(low, high))) => {
                integer(&self.path(name), &value, low, high).map(Some)
            }
            Some(_) => Err(self.bug(name)),
        }
    }

    /// Takes an integer from 1 to a limit of the gateway.
    pub fn count(&mut self, name: &str, limits: &Limits) -> Result<Option<u32>, ApiError> {
        match self.given(name)? {
            None => Ok(None),
            Some((value, Accepts::Count(most))) => {
                let most = i64::from(most(limits));
                let count = integer(&self.path(name), &value, 1, most)?;
                Ok(u32::try_from(count).ok())
            }
            Some(_) => Err(self.bug(name)),
        }
    }

    /// Takes an array of at most as many values as its table says.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        let path = self.path(name);
        match self.given(name)? {
            None => Ok(None),
            Some((Value::Array(list), Accepts::List(most, _))) if list.len() > most => {
                let message = format!("'{path}' has {} items: at most {most}.", list.len());
                Err(ApiError::param(path, message))
            }
            Some((Value::Array(list), Accepts::List(..))) => Ok(Some(list)),
            Some((other, Accepts::List(..))) => Err(wrong(&path, "an array", &other)),
            Some(_) => Err(self.bug(name)),
        }
    }

    /// An item of the list of objects `name`, to be read by that list's table.
    pub fn item(&self, name: &str, index: usize, value: Value) -> Result<Fields, ApiError> {
        match fields::find(self.table, name).map(|field| field.takes) {
            Some(Accepts::List(_, Items::Objects(table))) => {
                Self::new(value, format!("{}[{index}]", self.path(name)), table)
            }
            _ => Err(self.bug(name)),
        }
    }

    /// Takes an object, to be read by its table.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        let path = self.path(name);
        match self.given(name)? {
            None => Ok(None),
            Some((value, Accepts::Object(table))) => Self::new(value, path, table).map(Some),
            Some(_) => Err(self.bug(name)),
        }
    }

    /// Takes an object with any fields.
    pub fn map(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.given(name)? {
            None => Ok(None),
            Some((Value::Object(map), Accepts::Map)) => Ok(Some(map)),
            Some((other, Accepts::Map)) => Err(wrong(&self.path(name), "an object", &other)),
            Some(_) => Err(self.bug(name)),
        }
    }

    /// Accepts the remaining fields that change nothing, and refuses those that are not supported.
    fn rest(&mut self) -> Result<(), ApiError> {
        let table = self.table;
        for field in table.iter().flat_map(|fields| fields.iter()) {
            match (field.effect, field.takes) {
                (_, Accepts::Only(value)) => self.refuse(field.name, value)?,
                (_, Accepts::Never(instead)) => {
                    if self.take(field.name).is_some() {
                        let path = self.path(field.name);
                        let message = format!("'{path}' is not supported here: use {instead}.");
                        let error = ApiError::param(path, message);
                        return Err(error.code(Code::UnsupportedParameter));
                    }
                }
                (Effects::None, Accepts::Text) => drop(self.text(field.name)?),
                (Effects::None, Accepts::Flag) => drop(self.flag(field.name)?),
                (Effects::None, Accepts::Map) => drop(self.map(field.name)?),
                (Effects::None, _) => drop(self.take(field.name)),
                (Effects::Some, _) => {}
            }
        }
        Ok(())
    }

    /// Ends an object within a request. Fields that were not taken are dropped and noted in
    /// `ignored`; they can change no answer, because only taken fields are used.
    ///
    /// # Errors
    /// A 400 for a known field that is not supported.
    pub fn finish_within(mut self, ignored: &mut Ignored) -> Result<(), ApiError> {
        self.rest()?;
        for (name, _) in self.map.iter().filter(|(_, value)| !value.is_null()) {
            ignored.add(&self.path(name));
        }
        Ok(())
    }

    /// Refuses a field, unless its value is the JSON `default`, which means the same as no field.
    ///
    /// # Errors
    /// A 400.
    pub fn refuse(&mut self, name: &str, default: &str) -> Result<(), ApiError> {
        let default = serde_json::from_str(default).unwrap_or(Value::Null);
        match self.take(name) {
            None => Ok(()),
            Some(value) if same(&value, &default) => Ok(()),
            Some(_) => {
                let path = self.path(name);
                let message = match default {
                    Value::Null => format!("'{path}' is not supported here: leave it out."),
                    _ => format!("'{path}' is not supported here, except as {default}."),
                };
                Err(ApiError::param(path, message).code(Code::UnsupportedParameter))
            }
        }
    }

    /// The error for a field that must be there.
    pub fn missing(&self, name: &str) -> ApiError {
        let path = self.path(name);
        let message = format!("'{path}' is missing.");
        ApiError::param(path, message).code(Code::MissingRequiredParameter)
    }

    /// Ends the body of a request.
    ///
    /// # Errors
    /// A 400 for a field that is not supported, and for an unknown one.
    pub fn finish(mut self) -> Result<(), ApiError> {
        self.rest()?;
        let unknown = self.map.iter().find(|(_, value)| !value.is_null());
        let Some((name, _)) = unknown else {
            return Ok(());
        };
        let path: String = self.path(name).chars().take(200).collect();
        let message = format!("'{path}' is not known here: leave it out.");
        Err(ApiError::param(path, message).code(Code::UnknownParameter))
    }
}

fn integer(path: &str, value: &Value, low: i64, high: i64) -> Result<i64, ApiError> {
    if value.as_f64().is_none_or(|number| number.fract() != 0.0) {
        return Err(wrong(path, "an integer", value));
    }
    // In JSON 1.0 is an integer, too. A number beyond i64 is out of bounds in any case.
    let number = value.as_f64().unwrap_or(f64::MAX);
    let number = value.as_i64().unwrap_or(number as i64);
    if value.is_u64() && value.as_i64().is_none() || !(low..=high).contains(&number) {
        let message = format!("'{path}' has to be within {low} and {high}, and is {value}.");
        return Err(ApiError::param(path, message));
    }
    Ok(number)
}

/// Equality of two values; numbers are compared by value, so 1 equals 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The error for a value of a wrong type.
pub(crate) fn wrong(path: &str, expected: &str, found: &Value) -> ApiError {
    let message = format!("'{path}' has to be {expected}, and is {}.", kind(found));
    ApiError::param(path, message).code(Code::InvalidType)
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
