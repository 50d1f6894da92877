//! The methods of values.

use std::rc::Rc;

use super::fault::{Fault, Made};
use super::run::Rendering;
use super::text_methods;
use super::value::{Callable, Dict, Function, Given, Value, View};

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
