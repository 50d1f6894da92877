//! `/v1/chat/completions`.

use concord_text::ChatTemplate;
use serde_json::{Map, Value, json};

use super::common::Common;
use super::messages::{HandedField, messages};
use super::tools::{Tools, tools};
use crate::api_error::ApiError;
use crate::fields::CHAT;
use crate::gateway::Gateway;
use crate::ignored::Ignored;
use crate::json::Fields;

/// The field, and the template variable, that says how much a model should reason.
const EFFORT: &str = "reasoning_effort";

/// A chat.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub common: Common,
    pub prompt: ChatPrompt,
    /// The required format of the answer.
    pub shape: AnswerShape,
    /// `None` means as many as there is room for.
    pub max_tokens: Option<u32>,
    /// How many alternatives are reported with each token; `None` for no logprobs.
    pub logprobs: Option<u8>,
    /// Fields that change nothing.
    pub ignored: Ignored,
}

/// The input of the chat template.
#[derive(Debug)]
pub(crate) struct ChatPrompt {
    /// In the form that templates expect.
    pub messages: Value,
    pub tools: Option<Tools>,
    /// Further variables of the template.
    pub variables: Map<String, Value>,
    pub add_generation_prompt: bool,
}

impl ChatPrompt {
    /// Takes the fields of a prompt.
    ///
    /// # Errors
    /// A 400 that names the field.
    pub fn take(
        fields: &mut Fields,
        template: &ChatTemplate,
        ignored: &mut Ignored,
    ) -> Result<Self, ApiError> {
        let (messages, handed) = messages(fields, ignored)?;
        let tools = tools(fields, ignored)?;
        let (variables, paths) = template_variables(fields)?;
        let has_tools = tools.is_some();
        for HandedField { path, name } in &handed {
            if !template.reads_message_field(name, has_tools) {
                ignored.add(path);
            }
        }
        for (name, path) in variables.keys().zip(&paths) {
            if !template.reads_variable(name, has_tools) {
                ignored.add(path);
            }
        }
        let prompt = Self {
            messages,
            tools,
            variables,
            add_generation_prompt: fields.flag("add_generation_prompt")?.unwrap_or(true),
        };
        Ok(prompt)
    }
}

/// The required format of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AnswerShape {
    Text,
    JsonObject,
    /// JSON that follows this schema.
    JsonSchema(Map<String, Value>),
}

impl ChatRequest {
    /// Reads the body's object.
    ///
    /// # Errors
    /// A 400 that names the field, or a 404 for the model.
    pub fn read(value: Value, gateway: &Gateway) -> Result<Self, ApiError> {
        let mut fields = Fields::new(value, "", CHAT)?;
        let mut ignored = Ignored::default();
        let common = Common::take(&mut fields, gateway, &mut ignored)?;
        let prompt = ChatPrompt::take(&mut fields, &gateway.template, &mut ignored)?;
        let shape = shape(&mut fields, &mut ignored)?;
        let forced = prompt
            .tools
            .as_ref()
            .is_some_and(|tools| tools.forced.is_some());
        if shape != AnswerShape::Text && forced {
            let message =
                "'response_format' cannot hold beside a 'tool_choice' that forces a call.";
            return Err(ApiError::param("response_format", message));
        }
        let request = Self {
            common,
            prompt,
            shape,
            max_tokens: max_tokens(&mut fields)?,
            logprobs: logprobs(&mut fields)?,
            ignored,
        };
        fields.finish()?;
        Ok(request)
    }
}

fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let old = fields.integer("max_tokens")?;
    let new = fields.integer("max_completion_tokens")?;
    if old.is_some() && new.is_some() && old != new {
        let message = "'max_completion_tokens' contradicts 'max_tokens': send one of them.";
        return Err(ApiError::param("max_completion_tokens", message));
    }
    Ok(new.or(old).map(|tokens| tokens as u32))
}

fn logprobs(fields: &mut Fields) -> Result<Option<u8>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs")?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as u8)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message = "'top_logprobs' needs 'logprobs': true.";
            Err(ApiError::param("top_logprobs", message))
        }
    }
}

fn shape(fields: &mut Fields, ignored: &mut Ignored) -> Result<AnswerShape, ApiError> {
    let Some(mut format) = fields.object("response_format")? else {
        return Ok(AnswerShape::Text);
    };
    let kind = format.required_text("type")?;
    if kind != "json_schema" {
        // A schema that the answer would not follow must not be silently ignored.
        format.refuse("json_schema", "null")?;
    }
    let shape = match kind.as_str() {
        "text" => {
            format.refuse("schema", "null")?;
            AnswerShape::Text
        }
        // Other servers expect the schema here.
        "json_object" => format
            .map("schema")?
            .map_or(AnswerShape::JsonObject, AnswerShape::JsonSchema),
        "json_schema" => json_schema(&mut format, ignored)?,
        _ => {
            let message = "'response_format.type' has to be text, json_object or json_schema.";
            return Err(ApiError::param("response_format.type", message));
        }
    };
    format.finish_within(ignored)?;
    Ok(shape)
}

fn json_schema(format: &mut Fields, ignored: &mut Ignored) -> Result<AnswerShape, ApiError> {
    let Some(mut inner) = format.object("json_schema")? else {
        // Other servers expect the schema here.
        let schema = format.map("schema")?;
        let schema = schema.ok_or_else(|| format.missing("json_schema"))?;
        return Ok(AnswerShape::JsonSchema(schema));
    };
    let schema = inner.map("schema")?;
    let schema = schema.ok_or_else(|| inner.missing("schema"))?;
    inner.finish_within(ignored)?;
    format.refuse("schema", "null")?;
    Ok(AnswerShape::JsonSchema(schema))
}

/// Further variables for the template, and the path of each in the request.
fn template_variables(fields: &mut Fields) -> Result<(Map<String, Value>, Vec<String>), ApiError> {
    let mut variables = fields.map("chat_template_kwargs")?.unwrap_or_default();
    for own in ["messages", "tools", "add_generation_prompt"] {
        if variables.contains_key(own) {
            let path = format!("chat_template_kwargs.{own}");
            let message = format!("'{path}' is given by the request itself.");
            return Err(ApiError::param(path, message));
        }
    }
    let effort = fields.text("reasoning_effort")?;
    let is_own = effort.is_some();
    if let Some(effort) = effort {
        variables.insert(EFFORT.to_string(), json!(effort));
    }
    let path = |name: &String| match name == EFFORT && is_own {
        true => EFFORT.to_string(),
        false => format!("chat_template_kwargs.{name}"),
    };
    let paths = variables.keys().map(path).collect();
    Ok((variables, paths))
}
