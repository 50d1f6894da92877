//! Requests, read strictly.

mod chat;
mod common;
mod completion;
mod messages;
mod sampling;
mod tokenize;
mod tools;

pub(crate) use chat::{AnswerShape, ChatPrompt, ChatRequest};
pub(crate) use common::{Common, Way, token_list};
pub(crate) use completion::{CompletionRequest, Prompt};
pub(crate) use tokenize::TokenizeRequest;
pub(crate) use tools::Tools;
