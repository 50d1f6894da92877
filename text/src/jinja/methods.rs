//! The attributes and methods of values.

use std::rc::Rc;

use super::fault::{Fault, Made};
use super::function::{Callable, Function, Given};
use super::run::Rendering;
use super::text_methods;
use super::value::{Dict, Value, View};

const OF_DICTS: [&str; 5] = ["get", "items", "keys", "values", "copy"];
const OF_LISTS: [&str; 3] = ["index", "count", "copy"];
const OF_LOOPS: [&str; 2] = ["cycle", "changed"];
const OF_CYCLERS: [&str; 2] = ["next", "reset"];

/// Methods that change a dict or list, which the sandbox refuses.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "__setitem__",
];

/// The attribute of a value that is no entry of a dict: a method, or a variable.
pub fn attribute(value: &Value, name: &str) -> Option<Value> {
    let method = |names: &'static [&'static str]| {
        let found: Function = names.iter().copied().find(|known| *known == name)?;
        Some(Value::Method(Rc::new((value.clone(), found))))
    };
    let refused = || {
        CHANGING.contains(&name).then(|| {
            let kind = value.kind();
            let reason = format!("access to attribute '{name}' of '{kind}' object is unsafe");
            Value::undefined(reason)
        })
    };
    match value {
        Value::Text(_) => method(text_methods::NAMES),
        Value::Dict(_) => method(&OF_DICTS).or_else(|| match name {
            "append" | "extend" | "insert" | "remove" | "reverse" | "sort" => None,
            _ => refused(),
        }),
        Value::List(_) => method(&OF_LISTS).or_else(|| match name {
            "popitem" | "setdefault" | "update" => None,
            _ => refused(),
        }),
        Value::Tuple(list) => match (name, list.items()) {
            // What `groupby` gives.
            ("grouper", [key, _]) => Some(key.clone()),
            ("list", [_, values]) => Some(values.clone()),
            ("copy", _) => None,
            _ => method(&OF_LISTS),
        },
        Value::Namespace(namespace) => {
            let entries = namespace.entries.borrow();
            let found = entries.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        }
        Value::Loop(state) => state.attribute(name).or_else(|| method(&OF_LOOPS)),
        Value::Macro(called) if name == "name" => Some(Value::own(&called.syntax.name)),
        Value::Callable(callable) => match &**callable {
            Callable::Cycler(items, at) if name == "current" => items.get(at.get()).cloned(),
            Callable::Cycler(..) => method(&OF_CYCLERS),
            Callable::Joiner(..) => None,
        },
        _ => None,
    }
}

/// Calls a method of a value.
pub fn call(run: &mut Rendering, value: &Value, name: Function, mut given: Given) -> Made<Value> {
    match value {
        Value::Text(text) => text_methods::call(text, name, given, &mut run.budget),
        Value::Dict(dict) => of_dict(run, dict, name, given),
        Value::List(list) | Value::Tuple(list) => {
            let items = list.items();
            if name == "copy" {
                given.finish()?;
                return Ok(value.clone());
            }
            let wanted = given.need(0, "value")?;
            given.finish()?;
            run.budget
                .steps(items.len().saturating_mul(wanted.cost()))?;
            let mut places = items
                .iter()
                .enumerate()
                .filter(|(_, item)| item.equals(&wanted));
            match name {
                "count" => Ok(Value::Int(places.count() as i128)),
                _ => match places.next() {
                    Some((at, _)) => Ok(Value::Int(at as i128)),
                    None => Err(Fault::new("the value is not in the list")),
                },
            }
        }
        Value::Loop(state) => match name {
            "cycle" => state.cycle(given),
            _ => state.changed(given, &mut run.budget),
        },
        Value::Callable(callable) => match &**callable {
            Callable::Cycler(items, at) => {
                given.finish()?;
                let current = at.get();
                let next = if name == "reset" {
                    0
                } else {
                    (current + 1) % items.len()
                };
                at.set(next);
                match name {
                    "reset" => Ok(Value::None),
                    _ => Ok(items[current].clone()),
                }
            }
            Callable::Joiner(..) => Err(Fault::new(format!("a joiner has no method '{name}'"))),
        },
        other => Err(Fault::new(format!(
            "a {} has no method '{name}'",
            other.kind()
        ))),
    }
}

fn of_dict(run: &mut Rendering, dict: &Rc<Dict>, name: Function, mut given: Given) -> Made<Value> {
    run.budget.steps(1 + dict.entries().len() / 8)?;
    if name == "get" {
        let key = given.need(0, "key")?;
        let default = given.take(1, "default").unwrap_or(Value::None);
        given.finish()?;
        run.budget
            .steps((1 + dict.entries().len() / 8).saturating_mul(key.cost()))?;
        super::value::key_name(&key)?;
        return Ok(dict.get(&key).cloned().unwrap_or(default));
    }
    given.finish()?;
    if name == "copy" {
        return Ok(Value::Dict(dict.clone()));
    }
    let entries = dict.entries();
    run.budget.make::<(Value, Value)>(entries.len())?;
    let entry = |(key, value): &(Value, Value)| match name {
        "keys" => Ok(key.clone()),
        "values" => Ok(value.clone()),
        _ => Value::tuple(vec![key.clone(), value.clone()]),
    };
    let items: Made<Vec<Value>> = entries.iter().map(entry).collect();
    Ok(Value::View(Rc::new(View {
        name: format!("dict_{name}"),
        items: items?,
        is_range: false,
    })))
}
