//! A conversation as the text that a model was trained on: the chat template of its folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::TextError;
use crate::jinja::{Fault, Template, TemplateReads, Variables};
use crate::rendered_chat::RenderedChat;
use crate::tokenizer::TextTokenizer;
use crate::tokenizer_config::TokenizerConfig;

/// The template that is used where no other one is named.
const DEFAULT: &str = "default";
/// The one for conversations with tools, if there is one.
const WITH_TOOLS: &str = "tool_use";

/// The names under which clients send a model's reasoning.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The chat template of a model, in the dialect of Jinja that Hugging Face renders.
///
/// ```
/// use concord_text::ChatTemplate;
///
/// # fn main() -> Result<(), concord_text::TextError> {
/// let template = ChatTemplate::from_source(
///     "{% for m in messages %}{{ m.content }}{% if thinks %}<think>{% endif %}{% endfor %}",
/// )?;
/// // Whether a request sets a variable in vain is known before anything is rendered.
/// assert!(template.reads_variable("thinks", false));
/// assert!(!template.reads_variable("enable_thinking", false));
/// assert!(!template.reads_message_field("name", false));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    plain: Form,
    with_tools: Option<Form>,
    /// The texts of the two.
    source: String,
    /// `bos_token`, `eos_token` and the like, by name.
    tokens: BTreeMap<String, String>,
    /// What its clock shows; the machine's time where there is none.
    now: Option<Duration>,
}

/// A template, and what it may read.
#[derive(Debug)]
struct Form {
    template: Template,
    reads: TemplateReads,
}

impl ChatTemplate {
    /// The template of a model folder, as transformers finds it: `chat_template.jinja` and those in
    /// `additional_chat_templates`, else the `chat_template` of `tokenizer_config.json`, a text or
    /// a list of named ones, else that of `chat_template.json`. `None` where the folder has no
    /// template.
    ///
    /// # Errors
    /// [`TextError::Io`], [`TextError::Json`] or [`TextError::Template`] naming the file.
    pub fn open(folder: &Path) -> Result<Option<Self>, TextError> {
        let config = TokenizerConfig::open(folder)?;
        let sources = match sources_of_files(folder)? {
            sources if !sources.is_empty() => sources,
            _ => sources_of(config.path(), config.get("chat_template"))?,
        };
        let sources = match sources.is_empty() {
            true => sources_of_processor(folder)?,
            false => sources,
        };
        if sources.is_empty() {
            return Ok(None);
        }
        Self::build(sources, config.named_tokens()).map(Some)
    }

    /// The template of a `tokenizer_config.json`, which may be all that a model has.
    ///
    /// # Errors
    /// [`TextError::Json`], [`TextError::Template`].
    pub fn from_config(tokenizer_config_json: &[u8]) -> Result<Option<Self>, TextError> {
        let config = TokenizerConfig::from_bytes(tokenizer_config_json)?;
        let sources = sources_of(config.path(), config.get("chat_template"))?;
        match sources.is_empty() {
            true => Ok(None),
            false => Self::build(sources, config.named_tokens()).map(Some),
        }
    }

    /// A template that is given as a text.
    ///
    /// # Errors
    /// [`TextError::Template`].
    pub fn from_source(source: &str) -> Result<Self, TextError> {
        let source = Source::new("chat_template", DEFAULT, source);
        Self::build(vec![source], BTreeMap::new())
    }

    /// A template that is given as a text, for the tokenizer of a model: `bos_token` and
    /// `eos_token` are its own.
    ///
    /// # Errors
    /// [`TextError::Template`].
    pub fn for_tokenizer(source: &str, tokenizer: &TextTokenizer) -> Result<Self, TextError> {
        let named = [
            ("bos_token", tokenizer.bos()),
            ("eos_token", tokenizer.eos()),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, token)| Some((name.to_string(), token?.to_string())));
        let source = Source::new("chat_template", DEFAULT, source);
        Self::build(vec![source], named.collect())
    }

    /// A simple form for models that have no template: a line `role: text` for each message, and
    /// `assistant:` at the end where an answer is asked for. Tools are left out.
    pub fn plain() -> Self {
        let source = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n\
                      {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
        Self::from_source(source).expect("the plain template is right")
    }

    fn build(sources: Vec<Source>, tokens: BTreeMap<String, String>) -> Result<Self, TextError> {
        let named = |name: &str| sources.iter().find(|source| source.name == name);
        let read = |source: &Source| {
            let template = Template::read(&source.text);
            let template = template.map_err(|fault| TextError::Template {
                path: source.path.clone(),
                reason: fault.to_string(),
            })?;
            let reads = template.reads();
            Ok(Form { template, reads })
        };
        let Some(default) = named(DEFAULT) else {
            let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
            let path = sources.first().map(|source| source.path.clone());
            return Err(TextError::Template {
                path: path.unwrap_or_default(),
                reason: format!(
                    "none of them is named `default`, only: {}",
                    names.join(", ")
                ),
            });
        };
        Ok(Self {
            plain: read(default)?,
            with_tools: named(WITH_TOOLS).map(read).transpose()?,
            source: [Some(default), named(WITH_TOOLS)]
                .into_iter()
                .flatten()
                .map(|source| source.text.as_str())
                .collect::<Vec<&str>>()
                .join("\n"),
            tokens,
            now: None,
        })
    }

    /// The same template with a clock that stands, so that what it renders depends on its input
    /// alone. `now` is the time since 1970, in UTC.
    pub fn with_clock(mut self, now: Duration) -> Self {
        self.now = Some(now);
        self
    }

    /// Whether it marks what an assistant says with `{% generation %}`, in a conversation with or
    /// without tools.
    pub fn marks_answers(&self, has_tools: bool) -> bool {
        self.form(has_tools).reads.marks_answers()
    }

    /// Whether the template, or the one for tools, has a text in it, such as the marker of a
    /// format.
    pub fn mentions(&self, text: &str) -> bool {
        self.source.contains(text)
    }

    /// Whether the template may look at a variable, such as one of `chat_template_kwargs`, in a
    /// conversation with or without tools. Found without running it: every variable that it names
    /// counts as read.
    pub fn reads_variable(&self, name: &str, has_tools: bool) -> bool {
        self.form(has_tools).reads.has_variable(name)
    }

    /// Whether the template may look at a field of messages, in a conversation with or without
    /// tools. As with [`Self::reads_variable`], what cannot be known counts as read.
    pub fn reads_message_field(&self, name: &str, has_tools: bool) -> bool {
        let reads = &self.form(has_tools).reads;
        match REASONING.contains(&name) {
            // Each is handed on under all these names.
            true => REASONING.iter().any(|name| reads.has_message_field(name)),
            false => reads.has_message_field(name),
        }
    }

    fn form(&self, has_tools: bool) -> &Form {
        match &self.with_tools {
            Some(with_tools) if has_tools => with_tools,
            _ => &self.plain,
        }
    }

    /// The text of a conversation, special tokens included: [`crate::TextTokenizer::encode_chat`]
    /// makes tokens of it.
    ///
    /// `messages` and `tools` are lists as in the OpenAI API; `arguments` of tool calls that are
    /// JSON text reach the template as objects, and fields that are null not at all. `more` are
    /// further variables (`chat_template_kwargs`). A template that asks for the date gets today's,
    /// in UTC.
    ///
    /// # Errors
    /// [`TextError::Conversation`] with the template's words where it refuses, or where it takes
    /// more steps, or makes more bytes on its way, than a conversation can need.
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: bool,
        more: &Map<String, Value>,
    ) -> Result<RenderedChat, TextError> {
        let fail = |fault: Fault| TextError::Conversation {
            reason: fault.to_string(),
        };
        let tools = tools.filter(|tools| !tools.as_array().is_some_and(Vec::is_empty));
        let template = &self.form(tools.is_some()).template;
        let mut variables = Variables::default();
        for (name, token) in &self.tokens {
            variables.set(name, &json!(token), false).map_err(fail)?;
        }
        for (name, value) in more {
            variables.set(name, value, true).map_err(fail)?;
        }
        let null = Value::Null;
        let messages = normalized(messages);
        let prompts = Value::Bool(add_generation_prompt);
        let documents = more.get("documents").unwrap_or(&null);
        for (name, value) in [
            ("tools", tools.unwrap_or(&null)),
            ("documents", documents),
            ("add_generation_prompt", &prompts),
        ] {
            variables.set(name, value, true).map_err(fail)?;
        }
        variables.set_messages(&messages).map_err(fail)?;
        let letters = template.render(variables, self.now).map_err(fail)?;
        Ok(RenderedChat::of(&letters))
    }
}

/// A template, its name, and the file that it stands in.
struct Source {
    path: PathBuf,
    name: String,
    text: String,
}

impl Source {
    fn new(path: impl Into<PathBuf>, name: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            name: name.to_string(),
            text: text.to_string(),
        }
    }

    fn read(path: &Path, name: &str) -> Result<Self, TextError> {
        let text = fs::read_to_string(path).map_err(TextError::io("read", path))?;
        Ok(Self::new(path, name, &text))
    }
}

/// The templates that have files of their own.
fn sources_of_files(folder: &Path) -> Result<Vec<Source>, TextError> {
    let mut sources = Vec::new();
    let own = folder.join("chat_template.jinja");
    if own.is_file() {
        sources.push(Source::read(&own, DEFAULT)?);
    }
    let more = folder.join("additional_chat_templates");
    if more.is_dir() {
        let listed = fs::read_dir(&more).map_err(TextError::io("list", &more))?;
        for entry in listed {
            let path = entry.map_err(TextError::io("list", &more))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(|name| name.strip_suffix(".jinja")) {
                sources.push(Source::read(&path, name)?);
            }
        }
    }
    Ok(sources)
}

/// The templates of a `chat_template` in JSON: a text, a list of named ones, or a map of them.
fn sources_of(path: &Path, value: &Value) -> Result<Vec<Source>, TextError> {
    let wrong = || TextError::Template {
        path: path.to_path_buf(),
        reason: "`chat_template` is neither a text nor a list of `name` and `template`".to_string(),
    };
    let source = |name: &Value, text: &Value| match (name.as_str(), text.as_str()) {
        (Some(name), Some(text)) => Ok(Source::new(path, name, text)),
        _ => Err(wrong()),
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Source::new(path, DEFAULT, text)]),
        Value::Array(list) => {
            let sources = list
                .iter()
                .map(|entry| source(&entry["name"], &entry["template"]));
            sources.collect()
        }
        Value::Object(map) => map
            .iter()
            .map(|(name, text)| source(&json!(name), text))
            .collect(),
        _ => Err(wrong()),
    }
}

/// The template that a model of texts and pictures has in `chat_template.json`.
fn sources_of_processor(folder: &Path) -> Result<Vec<Source>, TextError> {
    let path = folder.join("chat_template.json");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(&path).map_err(TextError::io("read", &path))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(TextError::json(&path))?;
    sources_of(&path, &value["chat_template"])
}

/// The messages as transformers gives them to templates: without fields that are null, with the
/// reasoning under all its names, and with the arguments of tool calls as objects, since templates
/// spell them as JSON again.
fn normalized(messages: &Value) -> Value {
    let mut messages = messages.clone();
    let list = messages.as_array_mut().into_iter().flatten();
    for message in list.filter_map(Value::as_object_mut) {
        message.retain(|_, value| !value.is_null());
        let thought = REASONING
            .iter()
            .find_map(|name| message.get(*name).cloned());
        if let Some(thought) = thought {
            if !message.contains_key("thinking") {
                message.shift_insert(0, "thinking".to_string(), thought.clone());
            }
            message.insert("reasoning_content".to_string(), thought);
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            if let Some(arguments) = call.pointer_mut("/function/arguments")
                && let Some(text) = arguments.as_str()
                && let Ok(object @ Value::Object(_)) = serde_json::from_str(text)
            {
                *arguments = object;
            }
        }
    }
    messages
}
