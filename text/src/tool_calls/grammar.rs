//! Grammars that force a call of a tool.

use serde_json::{Map, Value, json};

use super::CallFormat;
use crate::error::TextError;
use crate::grammar::Grammar;
use crate::guide::with_bounded_space;
use crate::schema_numbers;
use crate::tokenizer::TextTokenizer;

/// Which call is forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// Of any tool.
    Required,
    /// Of the tool with this name.
    Named(String),
}

/// The most tools of a request.
const TOOLS_MAX: usize = 128;

/// The grammar of an answer that is calls and nothing else, in the format of the model: one call,
/// or with `parallel` one or more. `tools` is the list of the OpenAI API.
///
/// # Errors
/// [`TextError::Tools`] where it is not such a list, or lacks the chosen tool. Errors in the schema
/// of the parameters are found when the guide is made.
pub fn tool_grammar(
    format: CallFormat,
    tools: &Value,
    choice: &ToolChoice,
    parallel: bool,
    tokenizer: &TextTokenizer,
) -> Result<Grammar, TextError> {
    let mut functions = functions(tools)?;
    if let ToolChoice::Named(name) = choice {
        functions.retain(|function| function.name == *name);
        if functions.is_empty() {
            return Err(refused(format!(
                "tool_choice names `{name}`, which is no tool"
            )));
        }
    }
    let names: Vec<String> = (0..functions.len())
        .map(|index| format!("call_{index}"))
        .collect();
    let mark = |name: &str| marker(tokenizer, name);
    let more = |rule: &str| match parallel {
        true => format!(" ({rule})*"),
        false => String::new(),
    };
    let mut rules = match format {
        CallFormat::Hermes => {
            let (open, close) = (mark("<tool_call>"), mark("</tool_call>"));
            let more = more("\"\\n\" one");
            format!("start: one{more}\none: {open} \"\\n\" any \"\\n\" {close}\n")
        }
        // The format has no way to write two calls.
        CallFormat::Llama => "start: any\n".to_string(),
        CallFormat::Mistral => {
            let open = mark("[TOOL_CALLS]");
            let more = more("\", \" any");
            format!("start: {open} \"[\" any{more} \"]\"\n")
        }
        CallFormat::MistralArgs => {
            let more = more("one");
            format!("start: one{more}\none: {} any\n", mark("[TOOL_CALLS]"))
        }
    };
    rules += &format!("any: {}\n", names.join(" | "));
    for (rule, function) in names.iter().zip(&functions) {
        rules += &function.rule(format, rule, tokenizer);
    }
    Ok(Grammar::Lark(rules))
}

/// A tool.
struct Function {
    name: String,
    parameters: Value,
}

impl Function {
    /// `call_0: "{\"name\": \"f\", \"arguments\": " %json {..} "}"`
    fn rule(&self, format: CallFormat, rule: &str, tokenizer: &TextTokenizer) -> String {
        let parameters = format!("%json {}", self.parameters);
        if format == CallFormat::MistralArgs {
            let (name, args) = (quoted(&self.name), marker(tokenizer, "[ARGS]"));
            return format!("{rule}: {name} {args} {parameters}\n");
        }
        let key = match format {
            CallFormat::Llama => "parameters",
            _ => "arguments",
        };
        let head = format!("{{\"name\": {}, \"{key}\": ", json!(self.name));
        format!("{rule}: {} {parameters} \"}}\"\n", quoted(&head))
    }
}

fn functions(tools: &Value) -> Result<Vec<Function>, TextError> {
    let tools = tools.as_array().filter(|tools| !tools.is_empty());
    let tools = tools.ok_or_else(|| refused("a call is asked for, but there are no tools"))?;
    if tools.len() > TOOLS_MAX {
        return Err(refused(format!(
            "there are {}; at most {TOOLS_MAX}",
            tools.len()
        )));
    }
    let function = |(index, tool): (usize, &Value)| {
        let function = &tool["function"];
        let name = function["name"].as_str().filter(|name| !name.is_empty());
        let name =
            name.ok_or_else(|| refused(format!("tools[{index}].function.name is missing")))?;
        let parameters = match &function["parameters"] {
            Value::Null => json!({"type": "object", "properties": Map::new()}),
            parameters @ Value::Object(_) => parameters.clone(),
            _ => {
                let place = format!("tools[{index}].function.parameters");
                return Err(refused(format!("{place} must be an object")));
            }
        };
        schema_numbers::check(&parameters)
            .map_err(|reason| refused(format!("tools[{index}].function.parameters: {reason}")))?;
        Ok(Function {
            name: name.to_string(),
            parameters: with_bounded_space(parameters),
        })
    };
    tools.iter().enumerate().map(function).collect()
}

fn refused(reason: impl Into<String>) -> TextError {
    TextError::Tools {
        reason: reason.into(),
    }
}

/// A marker of a format: its token where that is special, else its text.
fn marker(tokenizer: &TextTokenizer, name: &str) -> String {
    match tokenizer.token_id(name) {
        Some(id) if tokenizer.is_special(id) => format!("<[{id}]>"),
        _ => quoted(name),
    }
}

/// A text in the grammar's own quotes, which are those of JSON.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}
