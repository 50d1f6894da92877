//! Goes through all keys of a file, so that none is left out: each is in the table of the tool, or
//! refused.

use serde_yaml_ng::{Mapping, Value};

use crate::builder::{JobBuilder, number};
use crate::shown::shown;
use crate::tables::{self, OWN_KEYS, Treat};

/// The largest edit distance at which a known key is suggested.
const TYPO_MAX: usize = 3;

/// Problems after which no more keys are suggested, which takes time.
const SUGGESTIONS_MAX: usize = 100;

/// Treats every key of the file by the tables. What is to be read is left to the reader, whose
/// work is checked by [`left`].
pub(crate) fn all(builder: &mut JobBuilder) {
    mapping(builder, builder.doc.root(), "", "");
}

fn mapping(builder: &mut JobBuilder, map: &Mapping, path: &str, pattern: &str) {
    for (key, value) in map {
        let Some(key) = key.as_str() else {
            let what = format!("has the key {}, which is not a word", shown(key));
            builder.problem(path, what, "", None);
            continue;
        };
        let joined = |holder: &str| match holder {
            "" => key.to_string(),
            holder => format!("{holder}.{key}"),
        };
        one(builder, value, &joined(path), &joined(pattern));
    }
}

fn one(builder: &mut JobBuilder, value: &Value, path: &str, pattern: &str) {
    if has_tag(value) {
        let what = "has a tag of YAML (!...), which means nothing here";
        return builder.problem(path, what, "remove it", None);
    }
    let tool = builder.out.tool;
    match (tables::find(tool, pattern), value) {
        // In these tools null is as good as no key.
        (Some(_), Value::Null) => {}
        (Some(row), Value::Mapping(map)) if opens(row.treat, builder, pattern) => {
            mapping(builder, map, path, pattern);
        }
        (Some(row), Value::Sequence(items)) if opens(row.treat, builder, pattern) => {
            list(builder, items, path, pattern);
        }
        (Some(row), value) => treat(builder, row.treat, value, path),
        (None, Value::Mapping(map)) if tables::has_within(tool, pattern) => {
            mapping(builder, map, path, pattern);
        }
        (None, Value::Sequence(items)) if tables::has_within(tool, pattern) => {
            list(builder, items, path, pattern);
        }
        (None, Value::Null) => builder.idle(path, "it has no value, which is as good as no key"),
        (None, value) => unknown(builder, value, path),
    }
}

/// Whether what is within a key has rows of its own.
fn opens(treat: Treat, builder: &JobBuilder, pattern: &str) -> bool {
    matches!(treat, Treat::Read(_) | Treat::Idle(_))
        && tables::has_within(builder.out.tool, pattern)
}

fn list(builder: &mut JobBuilder, items: &[Value], path: &str, pattern: &str) {
    builder.read.insert(path.to_string());
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match item {
            Value::Mapping(map) => mapping(builder, map, &path, &format!("{pattern}[]")),
            item => builder.problem(
                &path,
                format!("is {}, but must be keys", shown(item)),
                "",
                None,
            ),
        }
    }
}

fn treat(builder: &mut JobBuilder, treat: Treat, value: &Value, path: &str) {
    match treat {
        Treat::Read(_) => {}
        Treat::Same(own) => builder.copy(path, own),
        Treat::Idle(why) => builder.idle(path, why),
        Treat::Refuse(remedy) => {
            builder.problem(path, format!("is {}", shown(value)), remedy, None);
        }
        Treat::Unless { values, else_, set } => match is_one_of(value, values) {
            true => builder.idle(path, "with this value it changes nothing"),
            false => builder.problem(path, format!("is {}", shown(value)), else_, Some(set)),
        },
    }
}

/// Whether a value is one of those that change nothing; "" stands for all that are empty.
pub(crate) fn is_one_of(value: &Value, values: &[&str]) -> bool {
    let text = match value {
        Value::Null => String::new(),
        Value::Sequence(items) if items.is_empty() => String::new(),
        Value::Mapping(map) if map.is_empty() => String::new(),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => return false,
        Value::Bool(flag) => flag.to_string(),
        Value::String(text) => text.trim().to_lowercase(),
        Value::Number(number) => number.to_string(),
    };
    let is_zero = number(value) == Some(0.0);
    values.contains(&text.as_str()) || (is_zero && values.contains(&"0"))
}

fn unknown(builder: &mut JobBuilder, value: &Value, path: &str) {
    let own = OWN_KEYS.iter().find(|key| **key == path);
    if let Some(own) = own {
        return builder.copy(path, own);
    }
    let tool = builder.out.tool;
    let remedy = match nearest(builder, path) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "remove it, if the job is the same without it".to_string(),
    };
    let what = format!(
        "is {}: no such key of {} is known",
        shown(value),
        tool.name()
    );
    builder.problem(path, what, &remedy, None);
}

/// The known key that is nearest to an unknown one.
fn nearest(builder: &JobBuilder, path: &str) -> Option<&'static str> {
    if builder.out.problems.len() >= SUGGESTIONS_MAX {
        return None;
    }
    let names = tables::names(builder.out.tool).chain(OWN_KEYS);
    let near = names.filter(|name| name.len().abs_diff(path.len()) <= TYPO_MAX);
    let near = near.map(|name| (strsim::damerau_levenshtein(path, name), name));
    let (distance, name) = near.min()?;
    // In a short word so many letters are most of it.
    let most = TYPO_MAX.min(path.chars().count() / 2);
    (distance <= most).then_some(name)
}

/// Whether a value, or one in its lists, has a YAML tag.
fn has_tag(value: &Value) -> bool {
    match value {
        Value::Tagged(_) => true,
        Value::Sequence(values) => values.iter().any(has_tag),
        _ => false,
    }
}

/// Keys that the table gives to the reader and the reader did not ask for: nothing is ignored in
/// silence, so each is a problem.
pub(crate) fn left(builder: &mut JobBuilder) {
    let mut left = Vec::new();
    collect(builder, builder.doc.root(), ("", ""), &mut left);
    for path in left {
        builder.problem(
            &path,
            "has no effect beside the other keys",
            "remove it",
            Some("null"),
        );
    }
}

fn collect(builder: &JobBuilder, map: &Mapping, at: (&str, &str), left: &mut Vec<String>) {
    for (key, value) in map {
        let key = key.as_str().unwrap_or_default();
        let joined = |holder: &str| match holder {
            "" => key.to_string(),
            holder => format!("{holder}.{key}"),
        };
        let (path, pattern) = (joined(at.0), joined(at.1));
        let row = tables::find(builder.out.tool, &pattern);
        let is_read = matches!(row, Some(row) if matches!(row.treat, Treat::Read(_)));
        let was_read = builder.read.contains(&path);
        match value {
            Value::Null => {}
            Value::Mapping(inner) if !was_read => collect(builder, inner, (&path, &pattern), left),
            Value::Sequence(items) if tables::has_within(builder.out.tool, &pattern) => {
                for (index, item) in items.iter().enumerate() {
                    let (path, pattern) = (format!("{path}[{index}]"), format!("{pattern}[]"));
                    if let Value::Mapping(inner) = item {
                        collect(builder, inner, (&path, &pattern), left);
                    }
                }
            }
            _ if is_read && !was_read => left.push(path),
            _ => {}
        }
    }
}
