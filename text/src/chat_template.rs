//! A conversation as the text that a model was trained on: the chat template of its folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use minijinja::{Environment, context};
use serde_json::{Map, Value};

use crate::error::TextError;
use crate::jinja;

/// The name of the template in its environment, for messages.
const NAME: &str = "chat_template";
const WITH_TOOLS: &str = "tool_use";

/// The chat template of a model, in the dialect of Jinja that Hugging Face renders.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    has_tools_template: bool,
    /// `bos_token`, `eos_token` and the like, by name.
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// The template of a model folder: `chat_template.jinja`, else the `chat_template` of
    /// `tokenizer_config.json`. Nothing where it has neither.
    ///
    /// # Errors
    /// [`TextError::Io`], [`TextError::Json`] or [`TextError::Template`] naming the file.
    pub fn open(folder: &Path) -> Result<Option<Self>, TextError> {
        let path = folder.join("tokenizer_config.json");
        let config: Value = match path.is_file() {
            true => {
                let bytes = fs::read(&path).map_err(TextError::io("read", &path))?;
                serde_json::from_slice(&bytes).map_err(TextError::json(&path))?
            }
            false => Value::Null,
        };
        let own = folder.join("chat_template.jinja");
        if own.is_file() {
            let source = fs::read_to_string(&own).map_err(TextError::io("read", &own))?;
            return Self::build(own, source, None, &config).map(Some);
        }
        let named = |name: &str| {
            let list = config["chat_template"].as_array()?;
            let found = list.iter().find(|template| template["name"] == name)?;
            found["template"].as_str().map(str::to_string)
        };
        let plain = config["chat_template"].as_str().map(str::to_string);
        let Some(source) = plain.or_else(|| named("default")) else {
            return Ok(None);
        };
        Self::build(path, source, named(WITH_TOOLS), &config).map(Some)
    }

    /// A template of its text alone, such as one that was given on the command line.
    ///
    /// # Errors
    /// [`TextError::Template`].
    pub fn from_source(source: &str) -> Result<Self, TextError> {
        Self::build(NAME.into(), source.to_string(), None, &Value::Null)
    }

    /// A simple form for models that have no template: a line `role: text` for each message, and
    /// `assistant:` at the end where an answer is asked for. Tools are left out.
    pub fn plain() -> Self {
        let source = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\
                      {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
        Self::from_source(source).expect("the plain template is right")
    }

    fn build(
        path: PathBuf,
        source: String,
        with_tools: Option<String>,
        config: &Value,
    ) -> Result<Self, TextError> {
        let fail = |error: minijinja::Error| TextError::Template {
            path: path.clone(),
            reason: jinja::words(&error),
        };
        let mut environment = jinja::environment();
        let has_tools_template = with_tools.is_some();
        for (name, source) in [(NAME, Some(source.clone())), (WITH_TOOLS, with_tools)] {
            if let Some(source) = source {
                let source = jinja::without_generation_tags(&source);
                environment.add_template_owned(name, source).map_err(fail)?;
            }
        }
        let tokens = config.as_object().into_iter().flatten();
        let tokens = tokens.filter(|(key, _)| key.ends_with("_token"));
        let tokens = tokens.filter_map(|(key, token)| {
            let content = token.get("content").unwrap_or(token).as_str()?;
            Some((key.clone(), content.to_string()))
        });
        Ok(Self {
            tokens: tokens.collect(),
            environment,
            source,
            has_tools_template,
        })
    }

    /// Whether the template has a text in it, such as the marker of a format.
    pub fn mentions(&self, text: &str) -> bool {
        self.source.contains(text)
    }

    /// The text of a conversation, special tokens included: encode it without adding any.
    ///
    /// `messages` and `tools` are lists as in the OpenAI API; `arguments` of tool calls that are
    /// JSON text reach the template as objects. `more` are further variables
    /// (`chat_template_kwargs`). A template that asks for the date gets today's, in UTC.
    ///
    /// # Errors
    /// [`TextError::Conversation`] with the template's words where it refuses, or where it takes
    /// more steps, or makes more text, than a conversation can need. (What a template keeps in
    /// variables has no bound: like the weights, it is the model's, and no client's.)
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: bool,
        more: &Map<String, Value>,
    ) -> Result<String, TextError> {
        let fail = |error: minijinja::Error| TextError::Conversation {
            reason: jinja::words(&error),
        };
        let has_tools = tools.is_some_and(|tools| !tools.as_array().is_some_and(Vec::is_empty));
        let name = match has_tools && self.has_tools_template {
            true => WITH_TOOLS,
            false => NAME,
        };
        let template = self.environment.get_template(name).map_err(fail)?;
        let own = context! {
            messages => with_argument_objects(messages),
            tools => tools.filter(|_| has_tools),
            documents => more.get("documents"),
            add_generation_prompt => add_generation_prompt,
        };
        let variables = context! {
            ..own,
            ..minijinja::Value::from_serialize(more),
            ..minijinja::Value::from_serialize(&self.tokens)
        };
        let mut text = jinja::BoundedText::default();
        template
            .render_captured_to(variables, &mut text)
            .map_err(fail)?;
        Ok(text.into_text())
    }
}

/// The messages, with the arguments of tool calls as objects: templates spell them as JSON again.
fn with_argument_objects(messages: &Value) -> Value {
    let mut messages = messages.clone();
    let list = messages.as_array_mut().into_iter().flatten();
    let calls = list.filter_map(|message| message.get_mut("tool_calls")?.as_array_mut());
    for call in calls.flatten() {
        let arguments = call.pointer_mut("/function/arguments");
        if let Some(arguments) = arguments
            && let Some(text) = arguments.as_str()
            && let Ok(object @ Value::Object(_)) = serde_json::from_str(text)
        {
            *arguments = object;
        }
    }
    messages
}
