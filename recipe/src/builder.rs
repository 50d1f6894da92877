//! Reads keys of a file and puts Concord's together; the readers of the tools do it with this.

use std::collections::BTreeSet;

use serde_yaml_ng::Value;

use crate::dataset::Dataset;
use crate::document::Document;
use crate::resolved::{Expected, Idle, Problem, Resolved, Setting, TokenRole, ValueSource};
use crate::shown::shown;
use crate::tool::Tool;

pub(crate) struct JobBuilder<'a> {
    pub doc: &'a Document,
    pub out: Resolved,
    /// Paths that were asked for.
    pub read: BTreeSet<String>,
}

impl<'a> JobBuilder<'a> {
    pub fn new(doc: &'a Document, tool: Tool, because: String) -> Self {
        Self {
            doc,
            out: Resolved {
                tool,
                because,
                settings: Vec::new(),
                model_revision: None,
                datasets: Vec::new(),
                test_datasets: Vec::new(),
                rules: None,
                expected: Vec::new(),
                problems: Vec::new(),
                idle: Vec::new(),
                notes: Vec::new(),
            },
            read: BTreeSet::new(),
        }
    }

    /// Whether a key has a value.
    pub fn has(&self, key: &str) -> bool {
        self.doc.get(key).is_some()
    }

    /// The value of a key; `None` where it is absent or null.
    pub fn value(&mut self, key: &str) -> Option<&'a Value> {
        self.read.insert(key.to_string());
        self.doc.get(key)
    }

    /// A value by one of its readings; what cannot be read so is a problem.
    fn typed<T>(
        &mut self,
        key: &str,
        allowed: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let typed = read(value);
        if typed.is_none() {
            self.wrong(key, value, allowed);
        }
        typed
    }

    /// `true` or `false`, also as YAML 1.1 spells them.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.typed(key, "true or false", flag)
    }

    /// A number, also one in quotes.
    pub fn number(&mut self, key: &str) -> Option<f64> {
        self.typed(key, "a number", number)
    }

    /// A whole number that is not negative.
    pub fn whole(&mut self, key: &str) -> Option<u64> {
        self.typed(key, "a whole number, 0 or more", |value| {
            let number = number(value)?;
            let fits = number >= 0.0 && number.fract() == 0.0 && number < 9e15;
            fits.then_some(number as u64)
        })
    }

    /// A text.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let text = self.typed(key, "a text", |value| value.as_str().map(str::to_string));
        text.filter(|text| !text.trim().is_empty())
    }

    /// A word or a flag, in lower case.
    pub fn word(&mut self, key: &str) -> Option<String> {
        self.typed(key, "a word", |value| match value {
            Value::String(text) => Some(text.trim().to_lowercase()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        })
    }

    /// Names: a list, or a text with commas.
    pub fn names(&mut self, key: &str) -> Option<Vec<String>> {
        self.typed(key, "a list of names", names)
    }

    /// Numbers: a list, or a text with commas.
    pub fn numbers(&mut self, key: &str) -> Option<Vec<f64>> {
        self.typed(key, "a list of numbers", |value| match value {
            Value::String(text) => text.split(',').map(|one| one.trim().parse().ok()).collect(),
            Value::Sequence(items) => items.iter().map(number).collect(),
            _ => None,
        })
    }

    /// The source of a value that comes from `key`.
    pub fn from(&self, key: &str, how: &str) -> ValueSource {
        ValueSource {
            place: Some(self.doc.place(key)),
            key: key.to_string(),
            how: how.to_string(),
        }
    }

    /// Gives a key of Concord a value; the first value stays.
    pub fn put(&mut self, key: &'static str, value: impl Into<Value>, source: ValueSource) {
        if self.out.setting(key).is_none() {
            let value = value.into();
            self.out.settings.push(Setting { key, value, source });
        }
    }

    /// Gives a key of Concord the value of `from`, if that is there.
    pub fn copy(&mut self, from: &str, key: &'static str) {
        if let Some(value) = self.value(from).cloned() {
            let source = self.from(from, "");
            self.put(key, value, source);
        }
    }

    /// Gives a key of Concord the default of the tool, unless it has a value.
    pub fn default(&mut self, key: &'static str, value: impl Into<Value>, of: &str) {
        let source = ValueSource {
            place: None,
            key: of.to_string(),
            how: format!("{}'s default", self.out.tool.name()),
        };
        self.put(key, value, source);
    }

    /// Copies the value of `from`, or takes the tool's default.
    pub fn copy_or(&mut self, from: &str, key: &'static str, default: impl Into<Value>) {
        self.copy(from, key);
        self.default(key, default, from);
    }

    /// The problem that a key is not what is allowed.
    fn wrong(&mut self, key: &str, value: &Value, allowed: &str) {
        let what = format!("is {}, but must be {allowed}", shown(value));
        self.problem(key, what, "", None);
    }

    /// Refuses a key; `set` is the value that would do instead.
    pub fn problem(&mut self, key: &str, what: impl Into<String>, remedy: &str, set: Option<&str>) {
        self.out.problems.push(Problem {
            place: self.doc.place(key),
            key: key.to_string(),
            what: what.into(),
            remedy: remedy.to_string(),
            set: set.map(|value| format!("{}={value}", for_set(key))),
        });
    }

    /// Refuses the value of a key.
    pub fn refuse(&mut self, key: &str, remedy: &str, set: Option<&str>) {
        let value = self.value(key).map(shown).unwrap_or_default();
        self.problem(key, format!("is {value}"), remedy, set);
    }

    /// A key that must be there and is not.
    pub fn missing(&mut self, key: &str, remedy: &str) {
        let tool = self.out.tool.name();
        self.problem(
            key,
            format!("is missing, and {tool} has no default"),
            remedy,
            None,
        );
    }

    /// Says that a key changes nothing.
    pub fn idle(&mut self, key: &str, why: &str) {
        self.read.insert(key.to_string());
        self.out.idle.push(Idle {
            place: self.doc.place(key),
            key: key.to_string(),
            why: why.to_string(),
        });
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.out.notes.push(note.into());
    }

    /// A token that the tokenizer must have.
    pub fn expect(&mut self, key: &str, role: TokenRole) {
        if let Some(text) = self.text(key) {
            let (place, key) = (self.doc.place(key), key.to_string());
            let expected = Expected {
                place,
                key,
                role,
                text,
            };
            self.out.expected.push(expected);
        }
    }

    pub fn dataset(&mut self, dataset: Dataset) {
        self.out.datasets.push(dataset);
    }
}

/// A path as `--set` takes it without quotes in a shell: `datasets.0.path`.
fn for_set(path: &str) -> String {
    path.replace('[', ".").replace(']', "")
}

/// `true` or `false`, also as YAML 1.1 spells them.
pub(crate) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A finite number, also one in quotes.
pub(crate) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// Names: a list, or a text with commas.
pub(crate) fn names(value: &Value) -> Option<Vec<String>> {
    let clean = |name: &str| name.trim().to_string();
    match value {
        Value::String(text) => Some(
            text.split(',')
                .map(clean)
                .filter(|n| !n.is_empty())
                .collect(),
        ),
        Value::Sequence(items) => items.iter().map(|item| item.as_str().map(clean)).collect(),
        _ => None,
    }
}
