//! Calls of functions.

use std::cell::Cell;
use std::rc::Rc;

use super::fault::{Fault, Made};
use super::letters::Text;
use super::methods;
use super::print::text_of;
use super::run::Rendering;
use super::value::{Callable, Dict, Given, Value, View};
use crate::strftime;

/// The longest range, as in the sandbox that chat templates run in.
const RANGE_MAX: i128 = 100_000;

impl Rendering {
    /// Calls a value.
    pub fn call(&mut self, function: &Value, mut given: Given) -> Made<Value> {
        match function {
            Value::Macro(called) => self.call_macro(called, given),
            Value::Method(method) => methods::call(self, &method.0, method.1, given),
            Value::Function(name) => self.global(name, given),
            Value::Loop(state) => {
                let over = given.need(0, "iterable")?;
                given.finish()?;
                self.loop_again(state, over)
            }
            Value::Callable(callable) => match &**callable {
                Callable::Joiner(separator, was_called) => {
                    given.finish()?;
                    match was_called.replace(true) {
                        true => Ok(separator.clone()),
                        false => Ok(Value::own("")),
                    }
                }
                Callable::Cycler(..) => Err(Fault::new("a cycler is no function: call its next()")),
            },
            Value::Undefined(reason) => Err(Fault::new(&**reason)),
            other => Err(Fault::new(format!(
                "'{}' object is not callable",
                other.kind()
            ))),
        }
    }

    fn global(&mut self, name: &str, mut given: Given) -> Made<Value> {
        match name {
            "range" => self.range(given),
            "dict" => {
                let entries = self.dict(given)?;
                Dict::new(entries).map(Value::Dict)
            }
            "namespace" => {
                let namespace = self.namespace()?;
                for (name, value) in self.dict(given)? {
                    let name = text_of(&name, &mut self.budget)?.to_string();
                    value.keep_in(&namespace, &name)?;
                }
                Ok(Value::Namespace(namespace))
            }
            "joiner" => {
                let separator = given.take(0, "sep").unwrap_or_else(|| Value::own(", "));
                given.finish()?;
                Ok(Value::Callable(Rc::new(Callable::Joiner(
                    separator,
                    Cell::new(false),
                ))))
            }
            "cycler" => {
                let items = given.rest();
                given.finish()?;
                if items.is_empty() {
                    return Err(Fault::new("at least one item has to be provided"));
                }
                Ok(Value::Callable(Rc::new(Callable::Cycler(
                    items,
                    Cell::new(0),
                ))))
            }
            "raise_exception" => {
                let message = given.need(0, "message")?;
                given.finish()?;
                Err(Fault::new(text_of(&message, &mut self.budget)?.to_string()))
            }
            "strftime_now" => {
                let format = given.need_text(0, "format")?;
                given.finish()?;
                let now = self.now.unwrap_or_else(strftime::now);
                let spelt = strftime::strftime(&format.to_string(), now);
                let spelt = spelt.map_err(Fault::new)?;
                Ok(Value::Text(Text::own(&spelt)))
            }
            other => Err(Fault::new(format!("there is no function '{other}'"))),
        }
    }

    fn range(&mut self, mut given: Given) -> Made<Value> {
        let parts = [
            given.int(0, "start")?,
            given.int(1, "stop")?,
            given.int(2, "step")?,
        ];
        given.finish()?;
        let (start, stop, step) = match parts {
            [None, ..] => return Err(Fault::new("range: an argument is missing")),
            [Some(stop), None, _] => (0, stop, 1),
            [Some(start), Some(stop), step] => (start, stop, step.unwrap_or(1)),
        };
        if step == 0 {
            return Err(Fault::new("range() arg 3 must not be zero"));
        }
        let span = if step > 0 {
            stop.saturating_sub(start)
        } else {
            start.saturating_sub(stop)
        };
        let width = step.saturating_abs();
        let count = span.max(0).saturating_add(width - 1) / width;
        if count > RANGE_MAX {
            return Err(Fault::new(format!(
                "a range has more than {RANGE_MAX} numbers"
            )));
        }
        self.budget
            .make::<Value>(usize::try_from(count).unwrap_or(usize::MAX))?;
        let name = match step {
            1 => format!("range({start}, {stop})"),
            _ => format!("range({start}, {stop}, {step})"),
        };
        let items = (0..count)
            .map(|index| Value::Int(start + index * step))
            .collect();
        Ok(Value::View(Rc::new(View {
            name,
            items,
            is_range: true,
        })))
    }

    /// The entries of `dict(..)`: those of a dict or of pairs, then the named arguments.
    fn dict(&mut self, mut given: Given) -> Made<Vec<(Value, Value)>> {
        let named = std::mem::take(&mut given.named);
        let mut entries = Vec::new();
        match given.take(0, "") {
            None => {}
            Some(Value::Dict(dict)) => {
                self.budget.make::<(Value, Value)>(dict.entries().len())?;
                entries.extend(dict.entries().iter().cloned());
            }
            Some(pairs) => {
                for pair in pairs.iterate(&mut self.budget)? {
                    let mut pair = pair.iterate(&mut self.budget)?;
                    let (Some(value), Some(key), true) = (pair.pop(), pair.pop(), pair.is_empty())
                    else {
                        return Err(Fault::new("dict: its values are no pairs"));
                    };
                    entries.push((key, value));
                }
            }
        }
        given.finish()?;
        entries.extend(
            named
                .into_iter()
                .map(|(name, value)| (Value::own(&name), value)),
        );
        Ok(entries)
    }
}
