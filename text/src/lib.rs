//! Text to tokens and back: tokenizer, chat templates, grammars, stop texts.
//!
//! Pure but for the reading of a model's files: what comes out is a function of what goes in.

mod error;
mod spelling;
mod stream;
mod tokenizer;

pub use error::TextError;
pub use stream::{TextStream, TokenStream};
pub use tokenizer::TextTokenizer;
