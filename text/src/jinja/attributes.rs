//! The attributes of values.

use std::rc::Rc;

use super::value::{Callable, Function, Value};

const OF_TEXTS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

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

/// The attribute of a value other than an entry of a dict: a method, or a variable.
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
        Value::Text(_) => method(OF_TEXTS),
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
