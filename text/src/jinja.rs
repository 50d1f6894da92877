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

use serde_json::Value as Json;

use fault::Made;
use run::Rendering;
use syntax::Body;
use value::Value;

pub use fault::Fault;
pub use letters::Letter;
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

    /// Its output for these variables.
    ///
    /// # Errors
    /// In the template's words where it refuses, or naming what went wrong, and the line.
    pub fn render(&self, variables: Variables) -> Result<Vec<Letter>, Fault> {
        Rendering::whole(&self.0, variables.0)
    }
}

impl Variables {
    /// Adds a variable, or puts it in the place of one of the same name. With `is_foreign`, its
    /// texts come from the conversation.
    ///
    /// # Errors
    /// Where it is nested too deeply.
    pub fn set(&mut self, name: &str, value: &Json, is_foreign: bool) -> Result<(), Fault> {
        let value: Made<Value> = Value::from_json(value, is_foreign);
        self.0.push((name.to_string(), value?));
        Ok(())
    }
}
