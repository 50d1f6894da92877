//! `concord train --keys`: every key of a job file.

use serde_json::{Value, json};

use super::known::{Absent, KEYS, Key};
use crate::support::output::Output;

/// Prints every key with its allowed values, its default and its meaning, as a page, or with
/// `--json` as one object per key.
pub fn print(output: &Output) {
    if output.is_json() {
        for key in &KEYS {
            output.result("", &object(key));
        }
    } else {
        let parts: Vec<String> = KEYS.iter().map(part).collect();
        output.result(&parts.join("\n"), &Value::Null);
    }
}

fn name(key: &Key) -> String {
    format!("{}{}", key.section.prefix(), key.name)
}

fn absent(key: &Key) -> String {
    match key.absent {
        Absent::Refused => "needed".to_string(),
        Absent::Is(value) => format!("default {value}"),
        Absent::Means(words) => format!("default: {words}"),
    }
}

fn part(key: &Key) -> String {
    let (name, allowed, meaning, absent) = (name(key), key.allowed, key.meaning, absent(key));
    format!("{name}\n    {meaning}\n    {allowed}; {absent}")
}

/// The sections of a job file by their titles. Each key has its name, its meaning, its allowed
/// values, and its default.
#[cfg(test)]
pub fn sections() -> Vec<(&'static str, Vec<[String; 4]>)> {
    use super::known::Section;

    let of = |section: Section| {
        let keys = section.keys();
        let row = |key: &Key| {
            let meaning = key.meaning.to_string();
            [name(key), meaning, key.allowed.to_string(), absent(key)]
        };
        keys.map(row).collect()
    };
    vec![
        ("The job", of(Section::Job)),
        ("An entry of `datasets`", of(Section::Dataset)),
        ("The mapping `precision`", of(Section::Precision)),
    ]
}

fn object(key: &Key) -> Value {
    let (needed, default, without) = match key.absent {
        Absent::Refused => (true, None, None),
        Absent::Is(value) => (false, Some(value), None),
        Absent::Means(words) => (false, None, Some(words)),
    };
    json!({
        "event": "key", "key": name(key), "meaning": key.meaning,
        "allowed": key.allowed.to_string(), "needed": needed, "default": default,
        "without": without,
    })
}
