//! Jinja as Hugging Face's libraries set it up for chat templates: Jinja2 on Python, in its
//! sandbox, without a loader.
//!
//! An interpreter of our own, for three things that no Rust library has together: Python's values
//! and the methods of its strings, a bound on every byte that a template makes, and letters that
//! know whether they came with the conversation.

mod attributes;
mod budget;
mod call;
mod characters;
mod eval;
mod expression;
mod fault;
mod filters;
mod format;
mod json;
mod letters;
mod lexer;
mod list_filters;
mod literal;
mod macro_calls;
mod methods;
mod numbers;
mod operators;
mod parser;
mod percent;
mod print;
mod questions;
mod reads;
mod run;
mod syntax;
mod text_cases;
mod text_filters;
mod text_methods;
mod token;
mod value;

use std::time::Duration;

use serde_json::Value as Json;

use fault::Made;
use letters::LetterOrigin;
use run::Rendering;
use syntax::Body;
use value::Value;

pub use fault::Fault;
pub use letters::{Letter, MESSAGES_MAX};
pub use reads::TemplateReads;

/// A template that was read.
#[derive(Debug)]
pub struct Template(Body);

/// The variables of a rendering.
#[derive(Default)]
pub struct Variables(Vec<(String, Value)>);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Naming what cannot be read or is not supported, and its line.
    pub fn read(source: &str) -> Result<Self, Fault> {
        parser::parse(source).map(Self)
    }

    /// Which variables and message fields it may read.
    pub fn reads(&self) -> TemplateReads {
        TemplateReads::of(&self.0)
    }

    /// Its output for these variables; `now` is what its clock shows, as time since 1970, or else
    /// that of the machine.
    ///
    /// # Errors
    /// In the template's words where it refuses, or naming what went wrong, and the line.
    pub fn render(
        &self,
        variables: Variables,
        now: Option<Duration>,
    ) -> Result<Vec<Letter>, Fault> {
        Rendering::whole(&self.0, variables.0, now)
    }
}

impl Variables {
    /// Adds a variable, or puts it in the place of one of the same name. With `is_foreign`, its
    /// texts come from the conversation.
    ///
    /// # Errors
    /// Where it is nested too deeply.
    pub fn set(&mut self, name: &str, value: &Json, is_foreign: bool) -> Result<(), Fault> {
        let origin = match is_foreign {
            true => LetterOrigin::CONVERSATION,
            false => LetterOrigin::TEMPLATE,
        };
        let value: Made<Value> = Value::from_json(value, origin);
        self.0.push((name.to_string(), value?));
        Ok(())
    }

    /// Adds `messages`, whose texts know from which of them they came.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_messages(&mut self, messages: &Json) -> Result<(), Fault> {
        let Some(list) = messages.as_array() else {
            return self.set("messages", messages, true);
        };
        let numbered = list.iter().enumerate();
        let values = numbered.map(|(at, one)| Value::from_json(one, LetterOrigin::message(at)));
        let values: Made<Value> = values.collect::<Made<_>>().and_then(Value::list);
        self.0.push(("messages".to_string(), values?));
        Ok(())
    }
}
