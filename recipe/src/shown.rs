//! Values in messages.

use serde_yaml_ng::Value;

/// At most so many characters of a value are shown.
const SHOWN_MAX: usize = 60;

/// A value as it is shown in a message, on one line.
pub fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("\"{}\"", text.escape_debug()),
        Value::Sequence(_) | Value::Mapping(_) => serde_json::to_string(value).unwrap_or_default(),
        other => serde_yaml_ng::to_string(other).unwrap_or_default(),
    };
    let text = text.trim_end();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}
