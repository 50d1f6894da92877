//! Values as Python's `json.dumps` spells them.

use std::cmp::Ordering;

use super::budget::Budget;
use super::fault::{Fault, Made};
use super::letters::{Letter, Text};
use super::operators::order;
use super::print::{add, float_text};
use super::value::{Dict, Given, Value};

/// The filter `tojson` of chat templates: nothing is escaped for HTML.
pub fn tojson(value: &Value, mut given: Given, budget: &mut Budget) -> Made<Value> {
    let ascii = given.flag(0, "ensure_ascii", false);
    let indent = match given.take(1, "indent") {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text),
        Some(other) => {
            let wrong = given.wrong("indent", "a number or a text", &other);
            let blanks = usize::try_from(other.as_int().ok_or(wrong)?.max(0)).unwrap_or(usize::MAX);
            budget.make::<Letter>(blanks)?;
            Some(Text::own(&" ".repeat(blanks)))
        }
    };
    let separators = match given.take(2, "separators") {
        None | Some(Value::None) => {
            let between = if indent.is_some() { "," } else { ", " };
            [Text::own(between), Text::own(": ")]
        }
        Some(pair) => {
            let texts = pair.iterate(budget)?;
            let [Value::Text(between), Value::Text(colon)] = texts.as_slice() else {
                return Err(given.wrong("separators", "a pair of texts", &pair));
            };
            [between.clone(), colon.clone()]
        }
    };
    let sorts = given.flag(3, "sort_keys", false);
    given.finish()?;
    let mut writer = Writer {
        ascii,
        indent,
        separators,
        sorts,
        out: Vec::new(),
        depth: 0,
        budget,
    };
    writer.value(value)?;
    Ok(Value::Text(writer.out.into()))
}

struct Writer<'a> {
    ascii: bool,
    indent: Option<Text>,
    /// Between values, and behind a key.
    separators: [Text; 2],
    sorts: bool,
    out: Vec<Letter>,
    depth: usize,
    budget: &'a mut Budget,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Made<()> {
        self.budget.steps(1)?;
        match value {
            Value::None => self.word("null"),
            Value::Bool(true) => self.word("true"),
            Value::Bool(false) => self.word("false"),
            Value::Int(number) => self.word(&number.to_string()),
            Value::Float(float) => self.word(&json_float(*float)),
            Value::Text(text) => self.string(text),
            Value::List(list) | Value::Tuple(list) => self.list(list.items()),
            Value::Dict(dict) => self.dict(dict),
            other => {
                let kind = other.kind();
                Err(Fault::new(format!(
                    "Object of type {kind} is not JSON serializable"
                )))
            }
        }
    }

    fn word(&mut self, word: &str) -> Made<()> {
        self.budget.make::<Letter>(word.len())?;
        add(&mut self.out, word);
        Ok(())
    }

    fn letters(&mut self, text: &Text) -> Made<()> {
        self.budget.make::<Letter>(text.len())?;
        self.out.extend_from_slice(text.letters());
        Ok(())
    }

    fn string(&mut self, text: &Text) -> Made<()> {
        self.budget.make::<Letter>(text.len() + 2)?;
        self.out.push(Letter::own('"'));
        for letter in text.letters() {
            let character = letter.character();
            let code = u32::from(character);
            let escaped = match character {
                '"' => "\\\"".to_string(),
                '\\' => "\\\\".to_string(),
                '\n' => "\\n".to_string(),
                '\r' => "\\r".to_string(),
                '\t' => "\\t".to_string(),
                '\u{8}' => "\\b".to_string(),
                '\u{C}' => "\\f".to_string(),
                _ if code < 0x20 || self.ascii && code == 0x7F => format!("\\u{code:04x}"),
                _ if self.ascii && code > 0x7F => {
                    let mut units = [0; 2];
                    let units = character.encode_utf16(&mut units).iter();
                    units.map(|unit| format!("\\u{unit:04x}")).collect()
                }
                _ => {
                    self.out.push(*letter);
                    continue;
                }
            };
            self.budget.make::<Letter>(escaped.len())?;
            let letters = escaped.chars();
            self.out.extend(letters.map(|c| letter.with(c)));
        }
        self.out.push(Letter::own('"'));
        Ok(())
    }

    fn list(&mut self, items: &[Value]) -> Made<()> {
        if items.is_empty() {
            return self.word("[]");
        }
        self.word("[")?;
        self.depth += 1;
        for (index, item) in items.iter().enumerate() {
            self.between(index > 0)?;
            self.value(item)?;
        }
        self.depth -= 1;
        self.line()?;
        self.word("]")
    }

    fn dict(&mut self, dict: &Dict) -> Made<()> {
        if dict.entries().is_empty() {
            return self.word("{}");
        }
        let mut entries: Vec<&(Value, Value)> = dict.entries().iter().collect();
        if self.sorts {
            self.budget.steps(entries.len())?;
            let mut failed = None;
            entries.sort_by(|(left, _), (right, _)| match order(left, right) {
                Ok(order) => order.unwrap_or(Ordering::Equal),
                Err(fault) => {
                    failed = Some(fault);
                    Ordering::Equal
                }
            });
            failed.map_or(Ok(()), Err)?;
        }
        self.word("{")?;
        self.depth += 1;
        for (index, (key, value)) in entries.into_iter().enumerate() {
            self.between(index > 0)?;
            self.key(key)?;
            let colon = self.separators[1].clone();
            self.letters(&colon)?;
            self.value(value)?;
        }
        self.depth -= 1;
        self.line()?;
        self.word("}")
    }

    fn key(&mut self, key: &Value) -> Made<()> {
        let word = match key {
            Value::Text(text) => return self.string(text),
            Value::Bool(true) => "true".to_string(),
            Value::Bool(false) => "false".to_string(),
            Value::None => "null".to_string(),
            Value::Int(number) => number.to_string(),
            Value::Float(float) => json_float(*float),
            other => {
                let kind = other.kind();
                return Err(Fault::new(format!(
                    "keys must be str, int, float, bool or None, not {kind}"
                )));
            }
        };
        self.word(&format!("\"{word}\""))
    }

    fn between(&mut self, is_later: bool) -> Made<()> {
        if is_later {
            let separator = self.separators[0].clone();
            self.letters(&separator)?;
        }
        self.line()
    }

    fn line(&mut self) -> Made<()> {
        let Some(indent) = self.indent.clone() else {
            return Ok(());
        };
        self.word("\n")?;
        (0..self.depth).try_for_each(|_| self.letters(&indent))
    }
}

fn json_float(float: f64) -> String {
    match float_text(float).as_str() {
        "nan" => "NaN".to_string(),
        "inf" => "Infinity".to_string(),
        "-inf" => "-Infinity".to_string(),
        other => other.to_string(),
    }
}
