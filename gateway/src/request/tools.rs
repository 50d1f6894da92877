//! Tools, and which of them the model has to call.

use std::collections::BTreeSet;

use concord_text::ToolChoice;
use serde_json::{Map, Value, json};

use crate::api_error::ApiError;
use crate::fields::CHOICE;
use crate::ignored::Ignored;
use crate::json::{Fields, wrong};

/// Most characters of a tool's name.
const NAME_MAX: usize = 64;

/// The tools of a request.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The list in the form that templates expect.
    pub list: Value,
    pub names: Vec<String>,
    /// The call that is forced, if one is.
    pub forced: Option<ToolChoice>,
    /// Whether there may be several calls.
    pub parallel: bool,
}

/// Takes `tools`, `tool_choice` and `parallel_tool_calls`. `None` where there are no tools, or none
/// may be called.
///
/// # Errors
/// A 400 that names the field.
pub(super) fn tools(fields: &mut Fields, ignored: &mut Ignored) -> Result<Option<Tools>, ApiError> {
    let parallel = fields.flag("parallel_tool_calls")?.unwrap_or(true);
    let list = fields.list("tools")?.unwrap_or_default();
    let mut names = Vec::new();
    let mut known = BTreeSet::new();
    let mut tools = Vec::new();
    for (index, value) in list.into_iter().enumerate() {
        let (name, tool) = tool(fields.item("tools", index, value)?, ignored)?;
        if !known.insert(name.clone()) {
            let path = format!("tools[{index}].function.name");
            let message = format!("'{path}' is '{name}', as of another tool.");
            return Err(ApiError::param(path, message));
        }
        names.push(name);
        tools.push(tool);
    }
    let choice = choice(fields, &names, ignored)?;
    if names.is_empty() || choice == Choice::None {
        return Ok(None);
    }
    Ok(Some(Tools {
        list: Value::Array(tools),
        names,
        forced: match choice {
            Choice::Forced(forced) => Some(forced),
            Choice::Auto | Choice::None => None,
        },
        parallel,
    }))
}

/// A tool in the form that templates expect, with only its name, description and parameters.
fn tool(mut fields: Fields, ignored: &mut Ignored) -> Result<(String, Value), ApiError> {
    let kind = fields.required_text("type")?;
    if kind != "function" {
        let path = fields.path("type");
        let message = format!("'{path}' has to be 'function'.");
        return Err(ApiError::param(path, message));
    }
    let function = fields.object("function")?;
    let mut function = function.ok_or_else(|| fields.missing("function"))?;
    let name = function.required_text("name")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
        let path = function.path("name");
        let message = format!("'{path}' has to be 1 to {NAME_MAX} letters, digits, '_', '-', '.'.");
        return Err(ApiError::param(path, message));
    }
    let description = function.text("description")?;
    let parameters = function.map("parameters")?;
    function.finish_within(ignored)?;
    fields.finish_within(ignored)?;
    let mut kept = Map::new();
    kept.insert("name".to_string(), json!(name));
    if let Some(description) = description {
        kept.insert("description".to_string(), json!(description));
    }
    if let Some(parameters) = parameters {
        kept.insert("parameters".to_string(), Value::Object(parameters));
    }
    Ok((name, json!({"type": "function", "function": kept})))
}

#[derive(PartialEq)]
enum Choice {
    Auto,
    None,
    Forced(ToolChoice),
}

fn choice(
    fields: &mut Fields,
    names: &[String],
    ignored: &mut Ignored,
) -> Result<Choice, ApiError> {
    let refuse = |message: String| Err(ApiError::param("tool_choice", message));
    let choice = match fields.take("tool_choice") {
        None => return Ok(Choice::Auto),
        Some(Value::String(text)) => match text.as_str() {
            "auto" => return Ok(Choice::Auto),
            "none" => return Ok(Choice::None),
            "required" => ToolChoice::Required,
            _ => {
                let message = "'tool_choice' has to be auto, none, required, or name a function.";
                return refuse(message.to_string());
            }
        },
        Some(value @ Value::Object(_)) => {
            named(Fields::new(value, "tool_choice", CHOICE)?, names, ignored)?
        }
        Some(other) => return Err(wrong("tool_choice", "a string or an object", &other)),
    };
    match names.is_empty() {
        true => refuse("'tool_choice' asks for a call, and there are no 'tools'.".to_string()),
        false => Ok(Choice::Forced(choice)),
    }
}

fn named(
    mut fields: Fields,
    names: &[String],
    ignored: &mut Ignored,
) -> Result<ToolChoice, ApiError> {
    if fields.required_text("type")? != "function" {
        let message = "'tool_choice.type' has to be 'function'.";
        return Err(ApiError::param("tool_choice.type", message));
    }
    let function = fields.object("function")?;
    let mut function = function.ok_or_else(|| fields.missing("function"))?;
    let name = function.required_text("name")?;
    function.finish_within(ignored)?;
    fields.finish_within(ignored)?;
    if names.contains(&name) {
        return Ok(ToolChoice::Named(name));
    }
    let path = "tool_choice.function.name";
    let message = format!("'{path}' names none of the 'tools'.");
    Err(ApiError::param(path, message))
}
