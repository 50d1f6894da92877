//! Replaces or removes one value of a JSON object in its text; every other byte stays.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// `text`, a JSON object, with `value` in place of each value of `key`; where the key is absent, it
/// is added in front.
pub(crate) fn with_value(text: &str, key: &str, value: &str) -> String {
    let mut out = String::with_capacity(text.len() + value.len());
    let mut at = text.find('{').map_or(text.len(), |brace| brace + 1);
    let mut copied = 0;
    while let Some((name, after)) = next::<String>(text, at) {
        let start = text[after..]
            .find(':')
            .map_or(text.len(), |i| after + i + 1);
        let start = start + (text[start..].len() - text[start..].trim_start().len());
        let Some((_, end)) = next::<IgnoredAny>(text, start) else {
            break;
        };
        if name == key {
            out.push_str(&text[copied..start]);
            out.push_str(value);
            copied = end;
        }
        at = text[end..].find(',').map_or(text.len(), |i| end + i + 1);
    }
    if copied == 0 {
        let at = text.find('{').map_or(text.len(), |brace| brace + 1);
        let is_empty = text[at..].trim_start().starts_with('}');
        let comma = if is_empty { "" } else { ", " };
        return format!("{}\"{key}\": {value}{comma}{}", &text[..at], &text[at..]);
    }
    out.push_str(&text[copied..]);
    out
}

/// `text`, a JSON object, without `key` and without the comma that separates it from the others.
pub(crate) fn without_key(text: &str, key: &str) -> String {
    let start = text.find('{').map_or(text.len(), |brace| brace + 1);
    let (mut at, mut before) = (start, start);
    while let Some((name, after)) = next::<String>(text, at) {
        let value = text[after..].find(':').map(|colon| after + colon + 1);
        let value = value.and_then(|value| next::<IgnoredAny>(text, value));
        let Some((_, end)) = value else {
            break;
        };
        let comma = text[end..].find(',').map(|comma| end + comma);
        if name == key {
            // The comma before the key is removed; for the first key, the one after it.
            return match (before == start, comma) {
                (false, _) | (true, None) => [&text[..before], &text[end..]].concat(),
                (true, Some(comma)) => [&text[..start], &text[comma + 1..]].concat(),
            };
        }
        before = end;
        at = comma.map_or(text.len(), |comma| comma + 1);
    }
    text.to_string()
}

/// The value that begins at `at`, and where it ends.
fn next<'a, T: Deserialize<'a>>(text: &'a str, at: usize) -> Option<(T, usize)> {
    let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, at + values.byte_offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_with_its_comma() {
        for (text, expected) in [
            ("{\"a\": {\"b\": 1}}", "{}"),
            ("{\"a\": 1, \"b\": [2]}", "{ \"b\": [2]}"),
            (
                "{\n  \"b\": 1,\n  \"a\": {\"c\": 2},\n  \"d\": 3\n}",
                "{\n  \"b\": 1,\n  \"d\": 3\n}",
            ),
            ("{\n  \"b\": 1,\n  \"a\": 2\n}", "{\n  \"b\": 1\n}"),
            ("{\"b\": {\"a\": 1}}", "{\"b\": {\"a\": 1}}"),
        ] {
            assert_eq!(without_key(text, "a"), expected);
        }
    }

    #[test]
    fn one_value_changes_and_no_other_byte() {
        for (text, expected) in [
            (r#"{"a":true}"#, r#"{"a":false}"#),
            (
                " {\n\t\"b\": {\"a\": true, \"x\": [1, \"}\"]},\n  \"a\" : true ,\n \
                  \"c\": 1e-05\n}\n",
                " {\n\t\"b\": {\"a\": true, \"x\": [1, \"}\"]},\n  \"a\" : false ,\n \
                  \"c\": 1e-05\n}\n",
            ),
            (
                r#"{"x": "a\": true", "a": true, "\u0061": true, "y": "\u00e9,:"}"#,
                r#"{"x": "a\": true", "a": false, "\u0061": false, "y": "\u00e9,:"}"#,
            ),
            (r#"{"b": true}"#, r#"{"a": false, "b": true}"#),
            ("{}", r#"{"a": false}"#),
        ] {
            assert_eq!(with_value(text, "a", "false"), expected);
        }
    }
}
