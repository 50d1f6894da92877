//! The messages of a chat, as templates take them.

use serde_json::{Map, Value, json};

use crate::api_error::ApiError;
use crate::json::{Fields, wrong};

/// Messages of a chat.
const MESSAGES_MAX: usize = 16_384;

/// Calls of a message.
const CALLS_MAX: usize = 128;

/// Takes `messages`: a list of objects with `role`, `content` (a string, or absent beside calls)
/// and what belongs to calls.
///
/// # Errors
/// A 400 that names the message and its field.
pub(crate) fn messages(fields: &mut Fields) -> Result<Value, ApiError> {
    let list = fields.list("messages", MESSAGES_MAX)?;
    let list = list.ok_or_else(|| fields.missing("messages"))?;
    if list.is_empty() {
        let message = "'messages' is empty: at least one message is needed.";
        return Err(ApiError::param("messages", message));
    }
    let read = |(index, value)| message(Fields::new(value, format!("messages[{index}]"))?);
    list.into_iter().enumerate().map(read).collect()
}

fn message(mut fields: Fields) -> Result<Value, ApiError> {
    let role = fields.required_text("role")?;
    // Templates know `system`; `developer` is its newer name.
    let known = match role.as_str() {
        "developer" => "system",
        "system" | "user" | "assistant" | "tool" => role.as_str(),
        _ => {
            let path = fields.path("role");
            let message =
                format!("'{path}' has to be one of system, developer, user, assistant and tool.");
            return Err(ApiError::param(path, message));
        }
    };
    let mut message = Map::new();
    message.insert("role".to_string(), json!(known));
    let content = content(&mut fields)?;
    let mut calls = None;
    match known {
        "assistant" => {
            calls = tool_calls(&mut fields)?;
            let reasoning = fields.text("reasoning_content")?;
            if let Some(reasoning) = reasoning.or(fields.text("reasoning")?) {
                message.insert("reasoning_content".to_string(), json!(reasoning));
            }
            // What OpenAI's own answers carry, and clients send back.
            for name in ["refusal", "audio", "function_call"] {
                fields.refuse(name, &Value::Null)?;
            }
            fields.refuse("annotations", &json!([]))?;
        }
        "tool" => {
            let id = fields.required_text("tool_call_id")?;
            message.insert("tool_call_id".to_string(), json!(id));
        }
        _ => {}
    }
    if let Some(name) = fields.text("name")? {
        message.insert("name".to_string(), json!(name));
    }
    match content {
        Some(text) => message.insert("content".to_string(), json!(text)),
        // Templates that look for a text find an empty one.
        None if calls.is_some() => message.insert("content".to_string(), json!("")),
        None => return Err(fields.missing("content")),
    };
    if let Some(calls) = calls {
        message.insert("tool_calls".to_string(), calls);
    }
    fields.finish()?;
    Ok(Value::Object(message))
}

/// A string, or an array of parts of text, which stand on lines of their own.
fn content(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let path = fields.path("content");
    let parts = match fields.take("content") {
        None => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(text)),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(wrong(&path, "a string or an array of parts", &other)),
    };
    let part = |(index, value)| {
        let mut part = Fields::new(value, format!("{path}[{index}]"))?;
        let kind = part.required_text("type")?;
        if kind != "text" {
            let path = part.path("type");
            let kind: String = kind.chars().take(40).collect();
            let message = format!("'{path}' is '{kind}': this model reads text alone.");
            return Err(ApiError::param(path, message).code("unsupported_value"));
        }
        let text = part.required_text("text")?;
        part.finish()?;
        Ok(text)
    };
    let texts: Result<Vec<String>, ApiError> = parts.into_iter().enumerate().map(part).collect();
    Ok(Some(texts?.join("\n")))
}

fn tool_calls(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let path = fields.path("tool_calls");
    let list = fields.list("tool_calls", CALLS_MAX)?;
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return Ok(None);
    };
    let call = |(index, value)| {
        let mut call = Fields::new(value, format!("{path}[{index}]"))?;
        let id = call.required_text("id")?;
        call.ignore("index");
        if call.text("type")?.is_some_and(|kind| kind != "function") {
            let path = call.path("type");
            let message = format!("'{path}' has to be 'function'.");
            return Err(ApiError::param(path, message));
        }
        let mut function = call
            .object("function")?
            .ok_or_else(|| call.missing("function"))?;
        let name = function.required_text("name")?;
        let arguments = function.required_text("arguments")?;
        function.finish()?;
        call.finish()?;
        Ok(json!({
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }))
    };
    list.into_iter()
        .enumerate()
        .map(call)
        .collect::<Result<_, _>>()
        .map(Some)
}
