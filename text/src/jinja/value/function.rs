//! Functions and methods by their names, and the arguments that they are given.

use std::cell::Cell;

use super::Value;
use crate::jinja::fault::{Fault, Made};
use crate::jinja::letters::Text;

/// The name of a function or method.
pub type Function = &'static str;

/// A callable with a state.
#[derive(Debug)]
pub enum Callable {
    /// Empty at first, then the separator.
    Joiner(Value, Cell<bool>),
    /// One value after the other, from the start again.
    Cycler(Vec<Value>, Cell<usize>),
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub struct Given {
    /// The name of what is called, for messages.
    pub name: String,
    pub values: Vec<Option<Value>>,
    pub named: Vec<(String, Value)>,
}

impl Given {
    /// No arguments.
    pub fn none(name: &str) -> Self {
        Self {
            name: name.to_string(),
            ..Self::default()
        }
    }

    /// An argument by its place or its name.
    pub fn take(&mut self, at: usize, name: &str) -> Option<Value> {
        let placed = self.values.get_mut(at).and_then(Option::take);
        placed.or_else(|| self.take_named(name))
    }

    /// An argument by its name.
    pub fn take_named(&mut self, name: &str) -> Option<Value> {
        let at = self.named.iter().position(|(own, _)| own == name)?;
        Some(self.named.remove(at).1)
    }

    /// An argument that is required.
    pub fn need(&mut self, at: usize, name: &str) -> Made<Value> {
        let value = self.take(at, name);
        value.ok_or_else(|| Fault::new(format!("{}: the argument '{name}' is missing", self.name)))
    }

    /// A text that is required.
    pub fn need_text(&mut self, at: usize, name: &str) -> Made<Text> {
        let value = self.need(at, name)?;
        self.as_text(value, name)
    }

    /// A text; `None` where it is not given or is `none`.
    pub fn text(&mut self, at: usize, name: &str) -> Made<Option<Text>> {
        match self.take(at, name) {
            None | Some(Value::None) => Ok(None),
            Some(value) => self.as_text(value, name).map(Some),
        }
    }

    /// An integer; `None` where it is not given or is `none`.
    pub fn int(&mut self, at: usize, name: &str) -> Made<Option<i128>> {
        match self.take(at, name) {
            None | Some(Value::None) => Ok(None),
            Some(value) => {
                let int = value.as_int();
                int.map(Some)
                    .ok_or_else(|| self.wrong(name, "an integer", &value))
            }
        }
    }

    /// Whether an argument is there and true.
    pub fn flag(&mut self, at: usize, name: &str, default: bool) -> bool {
        self.take(at, name).map_or(default, |value| value.is_true())
    }

    /// Refuses arguments that nobody took.
    pub fn finish(self) -> Made<()> {
        if let Some((name, _)) = self.named.first() {
            let of = self.name;
            return Err(Fault::new(format!(
                "{of}: there is no argument '{name}' here"
            )));
        }
        match self.values.iter().any(Option::is_some) {
            true => Err(Fault::new(format!("{}: too many arguments", self.name))),
            false => Ok(()),
        }
    }

    /// All arguments by place that are left.
    pub fn rest(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.values)
            .into_iter()
            .flatten()
            .collect()
    }

    /// An error about the type of an argument.
    pub fn wrong(&self, name: &str, wanted: &str, found: &Value) -> Fault {
        let (of, kind) = (&self.name, found.kind());
        Fault::new(format!(
            "{of}: the argument '{name}' has to be {wanted}, not {kind}"
        ))
    }

    fn as_text(&self, value: Value, name: &str) -> Made<Text> {
        match value {
            Value::Text(text) => Ok(text),
            other => Err(self.wrong(name, "a text", &other)),
        }
    }
}
