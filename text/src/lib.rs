//! Text to tokens and back: tokenizer, chat templates, grammars, stop texts.
//!
//! Pure but for the reading of a model's files: what comes out is a function of what goes in. The
//! one exception is a chat template that asks for the date.

mod chat_template;
mod control_tokens;
mod error;
mod grammar;
mod guide;
mod held;
mod jinja;
mod pieces;
mod reasoning;
mod rendered_chat;
mod schema_numbers;
mod spelling;
mod stop;
mod stream;
mod strftime;
mod token_width;
mod tokenizer;
mod tokenizer_class;
mod tokenizer_config;
mod tool_calls;

pub use chat_template::ChatTemplate;
pub use error::TextError;
pub use grammar::Grammar;
pub use guide::{GRAMMAR_MAX, Guide, GuideFactory, Next};
pub use pieces::Pieces;
pub use reasoning::{ReasoningSplit, Split};
pub use rendered_chat::RenderedChat;
pub use stop::{StopTexts, Stopped};
pub use stream::{TextStream, TokenStream};
pub use token_width::TokenWidth;
pub use tokenizer::TextTokenizer;
pub use tool_calls::{CallEvent, CallFormat, CallParser, ToolChoice, tool_grammar};
