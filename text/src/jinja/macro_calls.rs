//! How macros are called.

use super::fault::{Fault, Made};
use super::letters::Text;
use super::run::Rendering;
use super::value::{Dict, Given, Macro, Scope, Value};

impl Rendering {
    /// The text that a macro makes of its arguments.
    pub fn call_macro(&mut self, called: &Macro, mut given: Given) -> Made<Value> {
        let syntax = &called.syntax;
        let name = &syntax.name;
        let scope = Scope::within(&called.scope);
        if syntax.takes.caller {
            let none = || Value::undefined("no caller is defined");
            scope.set("caller", given.take_named("caller").unwrap_or_else(none));
        }
        for (index, (parameter, default)) in syntax.parameters.iter().enumerate() {
            let value = match (given.take(index, parameter), default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.eval(default, &scope)?,
                (None, None) => Value::undefined(format!(
                    "the parameter '{parameter}' of {name} was not given"
                )),
            };
            scope.set(parameter, value);
        }
        let more: Vec<Value> = given.rest();
        match (syntax.takes.varargs, more.is_empty()) {
            (true, _) => scope.set("varargs", Value::tuple(more)?),
            (false, true) => {}
            (false, false) => {
                let most = syntax.parameters.len();
                return Err(Fault::new(format!(
                    "the macro '{name}' takes {most} arguments"
                )));
            }
        }
        if syntax.takes.kwargs {
            let entry = |(name, value): (String, Value)| (Value::Text(Text::own(&name)), value);
            let named = given.named.into_iter().map(entry).collect();
            scope.set("kwargs", Value::Dict(Dict::new(named)?));
        } else if let Some((unknown, _)) = given.named.first() {
            return Err(Fault::new(format!(
                "the macro '{name}' takes no argument '{unknown}'"
            )));
        }
        let made = self.captured(&syntax.body, &scope);
        scope.clear();
        Ok(Value::Text(made?))
    }
}
