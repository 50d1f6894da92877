//! `concord train --keys`: every key of a job file.

use serde_json::{Value, json};

use super::known::{Absent, KEYS, Key};
use crate::output::Output;

/// Prints every key with what it may be, its default and its meaning: a page, or an object each.
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

fn part(key: &Key) -> String {
    let absent = match key.absent {
        Absent::Refused => "needed".to_string(),
        Absent::Is(value) => format!("default {value}"),
        Absent::Means(words) => format!("default: {words}"),
    };
    let (name, allowed, meaning) = (name(key), key.allowed, key.meaning);
    format!("{name}\n    {meaning}\n    {allowed}; {absent}")
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
