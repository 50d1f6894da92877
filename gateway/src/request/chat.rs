//! `/v1/chat/completions`.

use concord_text::ChatTemplate;
use serde_json::{Map, Value, json};

use super::common::Common;
use super::messages::{HandedField, messages};
use super::tools::{Tools, tools};
use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::ignored::Ignored;
use crate::json::Fields;

/// How much a model is to think, in requests and in templates.
const EFFORT: &str = "reasoning_effort";

/// A chat.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub common: Common,
    pub prompt: ChatPrompt,
    /// What the answer has to be.
    pub shape: Shape,
    /// Without one, as many as there is room for.
    pub max_tokens: Option<u32>,
    /// Alternatives beside each token.
    pub logprobs: Option<u8>,
    /// What changes nothing.
    pub ignored: Ignored,
}

/// What a template makes a prompt of.
#[derive(Debug)]
pub(crate) struct ChatPrompt {
    /// As templates take them.
    pub messages: Value,
    pub tools: Option<Tools>,
    /// Further variables of the template.
    pub variables: Map<String, Value>,
    pub add_generation_prompt: bool,
}

impl ChatPrompt {
    /// Takes its fields.
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
        let defaults = [
            ("chat_template", Value::Null),
            ("documents", Value::Null),
            ("continue_final_message", json!(false)),
            ("add_special_tokens", json!(false)),
        ];
        defaults
            .iter()
            .try_for_each(|(name, default)| fields.refuse(name, default))?;
        Ok(prompt)
    }
}

/// What an answer has to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Text,
    JsonObject,
    /// JSON of this schema.
    JsonSchema(Map<String, Value>),
}

impl ChatRequest {
    /// Reads the body's object.
    ///
    /// # Errors
    /// A 400 that names the field, or a 404 for the model.
    pub fn read(value: Value, gateway: &Gateway) -> Result<Self, ApiError> {
        let mut fields = Fields::new(value, "")?;
        let mut ignored = Ignored::default();
        let common = Common::take(&mut fields, gateway, &mut ignored)?;
        let prompt = ChatPrompt::take(&mut fields, &gateway.template, &mut ignored)?;
        let shape = shape(&mut fields, &mut ignored)?;
        let forced = prompt
            .tools
            .as_ref()
            .is_some_and(|tools| tools.forced.is_some());
        if shape != Shape::Text && forced {
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
        without_support(&mut fields)?;
        fields.finish()?;
        Ok(request)
    }
}

fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let range = 1..=i64::from(u32::MAX);
    let old = fields.integer("max_tokens", range.clone())?;
    let new = fields.integer("max_completion_tokens", range)?;
    if old.is_some() && new.is_some() && old != new {
        let message = "'max_completion_tokens' contradicts 'max_tokens': send one of them.";
        return Err(ApiError::param("max_completion_tokens", message));
    }
    Ok(new.or(old).map(|tokens| tokens as u32))
}

fn logprobs(fields: &mut Fields) -> Result<Option<u8>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=20)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as u8)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message = "'top_logprobs' needs 'logprobs': true.";
            Err(ApiError::param("top_logprobs", message))
        }
    }
}

fn shape(fields: &mut Fields, ignored: &mut Ignored) -> Result<Shape, ApiError> {
    let Some(mut format) = fields.object("response_format")? else {
        return Ok(Shape::Text);
    };
    let kind = format.required_text("type")?;
    if kind != "json_schema" {
        // A schema that is not kept to is no annotation.
        format.refuse("json_schema", &Value::Null)?;
    }
    let shape = match kind.as_str() {
        "text" => {
            format.refuse("schema", &Value::Null)?;
            Shape::Text
        }
        // Other servers take the schema here.
        "json_object" => format
            .map("schema")?
            .map_or(Shape::JsonObject, Shape::JsonSchema),
        "json_schema" => json_schema(&mut format, ignored)?,
        _ => {
            let message = "'response_format.type' has to be text, json_object or json_schema.";
            return Err(ApiError::param("response_format.type", message));
        }
    };
    format.ignore_rest(ignored);
    Ok(shape)
}

fn json_schema(format: &mut Fields, ignored: &mut Ignored) -> Result<Shape, ApiError> {
    // The schema holds in any case.
    format.flag("strict")?;
    let Some(mut inner) = format.object("json_schema")? else {
        // As above.
        let schema = format.map("schema")?;
        let schema = schema.ok_or_else(|| format.missing("json_schema"))?;
        return Ok(Shape::JsonSchema(schema));
    };
    inner.text("name")?;
    inner.text("description")?;
    inner.flag("strict")?;
    let schema = inner.map("schema")?;
    let schema = schema.ok_or_else(|| inner.missing("schema"))?;
    inner.ignore_rest(ignored);
    format.refuse("schema", &Value::Null)?;
    Ok(Shape::JsonSchema(schema))
}

/// Further variables for the template, and where in the request each of them stands.
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

fn without_support(fields: &mut Fields) -> Result<(), ApiError> {
    let defaults = [
        ("modalities", json!(["text"])),
        ("audio", Value::Null),
        ("prediction", Value::Null),
        ("web_search_options", Value::Null),
        ("verbosity", json!("medium")),
        ("echo", json!(false)),
        ("prompt_logprobs", Value::Null),
        ("include_reasoning", json!(true)),
    ];
    defaults
        .iter()
        .try_for_each(|(name, default)| fields.refuse(name, default))
}
