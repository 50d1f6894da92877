//! The messages of a chat, in the form that templates expect.

use serde_json::{Map, Value, json};

use crate::api_error::ApiError;
use crate::code::Code;
use crate::fields::PART;
use crate::ignored::Ignored;
use crate::json::{Fields, wrong};

/// A field that only some templates read: its path in the request, and its name in templates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HandedField {
    pub path: String,
    pub name: &'static str,
}

/// Takes `messages`: a list of objects with `role`, `content` (a string, or parts) and the fields
/// of calls. Other fields are not passed to the template, and are noted in `ignored`. The result
/// also lists the fields that only some templates read.
///
/// # Errors
/// A 400 that names the message and its field.
pub(crate) fn messages(
    fields: &mut Fields,
    ignored: &mut Ignored,
) -> Result<(Value, Vec<HandedField>), ApiError> {
    let list = fields.list("messages")?;
    let list = list.ok_or_else(|| fields.missing("messages"))?;
    if list.is_empty() {
        let message = "'messages' is empty: at least one message is needed.";
        return Err(ApiError::param("messages", message));
    }
    let mut handed = Vec::new();
    let read = |(index, value)| {
        let fields = fields.item("messages", index, value)?;
        message(fields, ignored, &mut handed)
    };
    let messages: Result<Value, ApiError> = list.into_iter().enumerate().map(read).collect();
    Ok((messages?, handed))
}

fn message(
    mut fields: Fields,
    ignored: &mut Ignored,
    handed: &mut Vec<HandedField>,
) -> Result<Value, ApiError> {
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
    let mut content = content(&mut fields, ignored)?;
    let mut calls = None;
    match known {
        "assistant" => {
            calls = tool_calls(&mut fields, ignored)?;
            if let Some(reasoning) = reasoning(&mut fields, ignored, handed)? {
                message.insert("reasoning_content".to_string(), json!(reasoning));
            }
            // The refusal is the content of an assistant's message that has no other.
            let refusal = fields.text("refusal")?;
            content = content.or(refusal);
            // An answer may have been empty. Beside calls, absent content stays absent, because
            // templates test for it.
            if calls.is_none() {
                content.get_or_insert_default();
            }
        }
        "tool" => {
            let id = fields.required_text("tool_call_id")?;
            message.insert("tool_call_id".to_string(), json!(id));
            // The result of a tool may be empty.
            content.get_or_insert_default();
        }
        _ => {}
    }
    if let Some(name) = fields.text("name")? {
        message.insert("name".to_string(), json!(name));
        handed.push(HandedField {
            path: fields.path("name"),
            name: "name",
        });
    }
    if let Some(content) = content {
        message.insert("content".to_string(), json!(content));
    } else if calls.is_none() {
        return Err(fields.missing("content"));
    }
    if let Some(calls) = calls {
        message.insert("tool_calls".to_string(), calls);
    }
    // Fields that would mean another prompt are refused; the others change nothing.
    fields.finish_within(ignored)?;
    Ok(Value::Object(message))
}

/// The reasoning of an assistant, under either of its names.
fn reasoning(
    fields: &mut Fields,
    ignored: &mut Ignored,
    handed: &mut Vec<HandedField>,
) -> Result<Option<String>, ApiError> {
    let own = fields.text("reasoning_content")?;
    // Some servers use the other name.
    let other = fields.text("reasoning")?;
    let given = match (&own, &other) {
        (None, None) => return Ok(None),
        (None, Some(_)) => "reasoning",
        (Some(_), None) => "reasoning_content",
        (Some(_), Some(_)) => {
            ignored.add(&fields.path("reasoning"));
            "reasoning_content"
        }
    };
    handed.push(HandedField {
        path: fields.path(given),
        name: "reasoning_content",
    });
    Ok(own.or(other))
}

/// The content: a string, or an array of text parts, which are joined by line feeds.
fn content(fields: &mut Fields, ignored: &mut Ignored) -> Result<Option<String>, ApiError> {
    let path = fields.path("content");
    let parts = match fields.take("content") {
        None => return Ok(None),
        Some(Value::String(text)) => return Ok(Some(text)),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(wrong(&path, "a string or an array of parts", &other)),
    };
    let part = |(index, value)| {
        let mut part = Fields::new(value, format!("{path}[{index}]"), PART)?;
        let kind = part.required_text("type")?;
        let field = match kind.as_str() {
            // The last two are the names in OpenAI's newer API.
            "text" | "input_text" | "output_text" => "text",
            "refusal" => "refusal",
            _ => {
                let path = part.path("type");
                let kind: String = kind.chars().take(40).collect();
                let message = format!("'{path}' is '{kind}': this model reads text alone.");
                return Err(ApiError::param(path, message).code(Code::UnsupportedValue));
            }
        };
        let text = part.required_text(field)?;
        part.finish_within(ignored)?;
        Ok(text)
    };
    let texts: Result<Vec<String>, ApiError> = parts.into_iter().enumerate().map(part).collect();
    Ok(Some(texts?.join("\n")))
}

fn tool_calls(fields: &mut Fields, ignored: &mut Ignored) -> Result<Option<Value>, ApiError> {
    let list = fields.list("tool_calls")?;
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return Ok(None);
    };
    let call = |(index, value)| {
        let mut call = fields.item("tool_calls", index, value)?;
        let id = call.required_text("id")?;
        if call.text("type")?.is_some_and(|kind| kind != "function") {
            let path = call.path("type");
            let message = format!("'{path}' has to be 'function'.");
            return Err(ApiError::param(path, message));
        }
        let mut function = call
            .object("function")?
            .ok_or_else(|| call.missing("function"))?;
        let name = function.required_text("name")?;
        let arguments = arguments(&mut function)?;
        function.finish_within(ignored)?;
        call.finish_within(ignored)?;
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

/// The arguments of a call: the text of a JSON object, or the object itself; an empty object where
/// there are none.
fn arguments(function: &mut Fields) -> Result<Value, ApiError> {
    match function.take("arguments") {
        None => Ok(json!("{}")),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(json!("{}")),
        Some(given @ (Value::String(_) | Value::Object(_))) => Ok(given),
        Some(other) => {
            let path = function.path("arguments");
            Err(wrong(&path, "a string or an object", &other))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::CHAT;

    /// Templates tell an empty text from none, as in `message.content is defined`.
    #[test]
    fn content_beside_calls_is_there_where_it_was_said() {
        let calls = json!([{"id": "c", "type": "function", "function": {"name": "f"}}]);
        let cases = [
            (json!({"tool_calls": calls}), None),
            (json!({"tool_calls": calls, "content": null}), None),
            (json!({"tool_calls": calls, "content": ""}), Some("")),
            (json!({"tool_calls": calls, "content": "a"}), Some("a")),
            (json!({"tool_calls": [], "content": null}), Some("")),
            (json!({}), Some("")),
        ];
        for (mut sent, content) in cases {
            sent["role"] = json!("assistant");
            let body = json!({"messages": [sent]});
            let mut fields = Fields::new(body.clone(), "", CHAT).expect("an object");
            let read = messages(&mut fields, &mut Ignored::default());
            let (read, _) = read.expect("right messages");
            let found = read[0].get("content").map(|content| content.as_str());
            assert_eq!(found, content.map(Some), "{body}");
        }
    }
}
