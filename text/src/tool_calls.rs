//! The calls of tools in an answer.

mod event;
mod grammar;
mod json;
mod object;
mod parser;

use crate::chat_template::ChatTemplate;
use crate::tokenizer::TextTokenizer;

pub use event::CallEvent;
pub use grammar::{ToolChoice, tool_grammar};
pub use parser::CallParser;

/// How a model writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`: Hermes, Qwen.
    Hermes,
    /// `{"name": .., "parameters": {..}}`, alone or behind `<|python_tag|>`: Llama 3.
    Llama,
    /// `[TOOL_CALLS] [{"name": .., "arguments": {..}}]`: Mistral.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{..}`: later models of Mistral.
    MistralArgs,
}

impl CallFormat {
    /// The format that a model's chat template describes, else the one that its tokenizer has
    /// tokens for.
    pub fn find(template: Option<&ChatTemplate>, tokenizer: &TextTokenizer) -> Option<Self> {
        let knows = |text: &str| template.is_some_and(|template| template.mentions(text));
        let has = |name: &str| tokenizer.token_id(name).is_some();
        let mistral = match knows("[ARGS]") {
            true => Self::MistralArgs,
            false => Self::Mistral,
        };
        if knows("<function=") {
            // Calls as XML tags: not read.
            None
        } else if knows("<tool_call>") {
            Some(Self::Hermes)
        } else if knows("[TOOL_CALLS]") {
            Some(mistral)
        } else if knows("<|python_tag|>") || knows("\"parameters\":") {
            Some(Self::Llama)
        } else if has("<tool_call>") {
            Some(Self::Hermes)
        } else if has("[TOOL_CALLS]") {
            Some(mistral)
        } else if has("<|python_tag|>") {
            Some(Self::Llama)
        } else {
            None
        }
    }

    /// What a call begins with.
    fn opener(self) -> &'static str {
        self.markers()[0]
    }

    /// The markers of the format, the one that begins a call first.
    fn markers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &["<tool_call>", "</tool_call>"],
            Self::Llama => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]"],
            Self::MistralArgs => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
        }
    }

    /// The tokens that [`CallParser`] has to see by their names though they may be special: give
    /// them to [`crate::TextTokenizer::read_otherwise`].
    pub fn marker_tokens(self, tokenizer: &TextTokenizer) -> Vec<u32> {
        let markers = self.markers().iter();
        markers
            .filter_map(|name| tokenizer.token_id(name))
            .collect()
    }
}
