//! Numbers of a JSON schema that a grammar cannot enforce.

use serde_json::{Map, Number, Value};

/// Integers up to here are exact as 64-bit floats, which all bounds are converted to.
const EXACT: u64 = 1 << 53;

/// Keywords whose value is a number that bounds an answer.
const BOUNDS: [&str; 5] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];

/// Keywords whose value is what an answer may be, word for word.
const LITERALS: [&str; 2] = ["enum", "const"];

/// Keywords whose value says something to people and nothing about answers.
const NOTES: [&str; 7] = [
    "default",
    "example",
    "examples",
    "title",
    "description",
    "$comment",
    "x-guidance",
];

/// Keywords whose value is a map from names to schemas.
const MAPS: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];

/// Checks that no number of a schema would be taken for another one.
///
/// # Errors
/// A sentence that names the first such number and its place.
pub fn check(schema: &Value) -> Result<(), String> {
    of_schema(schema, "")
}

fn of_schema(schema: &Value, place: &str) -> Result<(), String> {
    match schema {
        Value::Object(object) => object
            .iter()
            .try_for_each(|(key, value)| of_keyword(key, value, &below(place, key))),
        Value::Array(schemas) => {
            let mut numbered = schemas.iter().enumerate();
            numbered.try_for_each(|(index, schema)| of_schema(schema, &below(place, index)))
        }
        _ => Ok(()),
    }
}

fn of_keyword(key: &str, value: &Value, place: &str) -> Result<(), String> {
    let maps = |map: &Map<String, Value>| {
        map.iter()
            .try_for_each(|(name, schema)| of_schema(schema, &below(place, name)))
    };
    match value {
        Value::Number(number) if BOUNDS.contains(&key) => exact(number, place),
        Value::Object(map) if MAPS.contains(&key) => maps(map),
        literal if LITERALS.contains(&key) => of_literal(literal, place),
        _ if NOTES.contains(&key) => Ok(()),
        // All others that hold schemas hold one, or a list of them.
        other => of_schema(other, place),
    }
}

fn of_literal(literal: &Value, place: &str) -> Result<(), String> {
    match literal {
        Value::Number(number) => exact(number, place),
        Value::Array(values) => {
            let mut numbered = values.iter().enumerate();
            numbered.try_for_each(|(index, value)| of_literal(value, &below(place, index)))
        }
        Value::Object(values) => values
            .iter()
            .try_for_each(|(key, value)| of_literal(value, &below(place, key))),
        _ => Ok(()),
    }
}

fn exact(number: &Number, place: &str) -> Result<(), String> {
    let is_exact = match (number.as_i64(), number.as_u64()) {
        (Some(integer), _) => integer.unsigned_abs() <= EXACT,
        (None, Some(integer)) => integer <= EXACT,
        // Longer integers come as floats, too.
        (None, None) => number
            .as_f64()
            .is_some_and(|float| float.abs() <= EXACT as f64),
    };
    match is_exact {
        true => Ok(()),
        false => Err(format!(
            "{place} is {number}, and numbers are held to their value up to {EXACT} only: use a \
             smaller one, or a string with a pattern"
        )),
    }
}

fn below(place: &str, key: impl std::fmt::Display) -> String {
    match place.is_empty() {
        true => key.to_string(),
        false => format!("{place}/{key}"),
    }
}
