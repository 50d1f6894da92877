//! Paths such as `datasets.0.path` or `datasets[0].path`, and putting a value there.

use serde_yaml_ng::{Mapping, Value};

/// Levels that a path may have.
const DEPTH_MAX: usize = 16;

/// The parts of a path.
pub fn parts(path: &str) -> Result<Vec<String>, String> {
    let dotted = path.replace('[', ".").replace(']', "");
    let parts: Vec<String> = dotted.split('.').map(str::to_string).collect();
    if parts.len() > DEPTH_MAX || parts.iter().any(String::is_empty) {
        return Err("the key is a name, or names with `.` between them".to_string());
    }
    Ok(parts)
}

/// Puts `value` there, or removes what is there where it is null. Mappings on the way are made;
/// a list grows by one item at most. Returns the path as messages write it.
pub fn put(root: &mut Mapping, parts: &[String], value: Value) -> Result<String, String> {
    let [first, rest @ ..] = parts else {
        return Err("the key is empty".to_string());
    };
    let key = Value::String(first.clone());
    if rest.is_empty() {
        match value.is_null() {
            true => drop(root.shift_remove(&key)),
            false => drop(root.insert(key, value)),
        }
        return Ok(first.clone());
    }
    let inner = root
        .entry(key)
        .or_insert_with(|| Value::Mapping(Mapping::new()));
    put_into(inner, first.clone(), rest, value)
}

fn put_into(
    holder: &mut Value,
    path: String,
    parts: &[String],
    value: Value,
) -> Result<String, String> {
    if holder.is_null() {
        *holder = Value::Mapping(Mapping::new());
    }
    match holder {
        Value::Mapping(map) => put(map, parts, value).map(|rest| format!("{path}.{rest}")),
        Value::Sequence(items) => put_item(items, path, parts, value),
        _ => Err(format!(
            "`{path}` is a single value, so nothing is within it"
        )),
    }
}

fn put_item(
    items: &mut Vec<Value>,
    path: String,
    parts: &[String],
    value: Value,
) -> Result<String, String> {
    let (first, rest) = parts.split_first().ok_or("the key is empty")?;
    let wrong = || {
        format!(
            "`{path}` is a list of {}: give a number from 0",
            items.len()
        )
    };
    let index: usize = first.parse().map_err(|_| wrong())?;
    if index > items.len() {
        return Err(wrong());
    }
    let path = format!("{path}[{index}]");
    if index == items.len() {
        items.push(Value::Null);
    }
    if !rest.is_empty() {
        return put_into(&mut items[index], path, rest, value);
    }
    match value.is_null() {
        true => drop(items.remove(index)),
        false => items[index] = value,
    }
    Ok(path)
}
