//! Text to tokens and back: tokenizer, chat templates, grammars, stop texts.
//!
//! Everything but reading a model's files is a pure function of its input. The one exception is a
//! chat template that asks for the date.
//!
//! A conversation becomes the text of a prompt, which knows what the template wrote and what came
//! with the conversation: [`TextTokenizer::encode_chat`] makes control tokens only of what the
//! template wrote.
//!
//! ```
//! use concord_text::ChatTemplate;
//! use serde_json::{Map, json};
//!
//! # fn main() -> Result<(), concord_text::TextError> {
//! let source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}";
//! let template = ChatTemplate::from_source(source)?;
//! let messages = json!([{"role": "user", "content": "Hello"}]);
//! let chat = template.render(&messages, None, true, &Map::new())?;
//! assert_eq!(chat.text(), "[user] Hello\n");
//! assert!(chat.is_foreign(&(7..12)) && !chat.is_foreign(&(0..1)));
//! # Ok(())
//! # }
//! ```

mod answer_text;
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
mod token_reader;
mod token_width;
mod tokenizer;
mod tokenizer_class;
mod tokenizer_config;
mod tool_calls;

pub use answer_text::{AnswerText, TextPiece};
pub use chat_template::ChatTemplate;
pub use error::TextError;
pub use grammar::Grammar;
pub use guide::{GRAMMAR_MAX, Guide, GuideFactory, Next};
pub use pieces::{PieceStream, Pieces};
pub use reasoning::{ReasoningSplit, Split};
pub use rendered_chat::RenderedChat;
pub use stop::{StopOutcome, StopTexts};
pub use stream::{TextStream, TokenStream};
pub use token_reader::{TokenReader, TokenText};
pub use token_width::TokenWidth;
pub use tokenizer::TextTokenizer;
pub use tool_calls::{CallEvent, CallFormat, CallParser, ToolChoice, tool_grammar};
