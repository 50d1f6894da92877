//! Evaluates expressions.

use std::rc::Rc;

use super::attributes;
use super::fault::{Fault, Made};
use super::letters::Letter;
use super::operators::{binary, compare, joined, signed, slice};
use super::print::text_of;
use super::run::Rendering;
use super::syntax::{Arguments, Constant, Expression, Filter};
use super::value::{Dict, Given, Scope, Value};

/// Names that stand for functions where no variable has them.
static GLOBALS: [&str; 7] = [
    "range",
    "dict",
    "namespace",
    "joiner",
    "cycler",
    "raise_exception",
    "strftime_now",
];

impl Rendering {
    /// The value of an expression.
    pub fn eval(&mut self, expression: &Expression, scope: &Rc<Scope>) -> Made<Value> {
        self.budget.enter()?;
        let value = self.value(expression, scope);
        self.budget.leave();
        value
    }

    fn value(&mut self, expression: &Expression, scope: &Rc<Scope>) -> Made<Value> {
        match expression {
            Expression::Name(name) => Ok(self.named(name, scope)),
            Expression::Constant(constant) => self.constant(constant),
            Expression::List(items) => {
                let items = self.all(items, scope)?;
                Value::list(items)
            }
            Expression::Tuple(items) => {
                let items = self.all(items, scope)?;
                Value::tuple(items)
            }
            Expression::Dict(entries) => {
                let mut pairs = Vec::new();
                for (key, value) in entries {
                    self.budget.make::<(Value, Value)>(1)?;
                    let key = self.eval(key, scope)?;
                    self.budget.steps(key.cost())?;
                    pairs.push((key, self.eval(value, scope)?));
                }
                Ok(Value::Dict(Dict::new(pairs)?))
            }
            Expression::Attribute(value, name) => {
                let value = self.eval(value, scope)?;
                self.attribute(&value, name)
            }
            Expression::Item(value, index) => {
                let value = self.eval(value, scope)?;
                let index = self.eval(index, scope)?;
                self.item(&value, &index)
            }
            Expression::Slice(value, parts) => {
                let value = self.eval(value, scope)?;
                let mut numbers = [None; 3];
                for (number, part) in numbers.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *number = slice_part(&self.eval(part, scope)?)?;
                    }
                }
                slice(&value, numbers, &mut self.budget)
            }
            Expression::Call(..) => self.call_with(expression, None, scope),
            Expression::Filter(value, filter) => {
                let value = match value {
                    Some(value) => self.eval(value, scope)?,
                    None => Value::None,
                };
                self.filter(value, filter, scope)
            }
            Expression::Test(value, test) => {
                let value = self.eval(value, scope)?;
                let given = self.given(&test.name, &test.arguments, scope)?;
                self.test(&value, given).map(Value::Bool)
            }
            other => self.operation(other, scope),
        }
    }

    /// The value of an operator.
    fn operation(&mut self, expression: &Expression, scope: &Rc<Scope>) -> Made<Value> {
        match expression {
            Expression::Not(value) => Ok(Value::Bool(!self.eval(value, scope)?.is_true())),
            Expression::Sign(sign, value) => signed(*sign, &self.eval(value, scope)?),
            Expression::Binary(operator, left, right) => {
                let left = self.eval(left, scope)?;
                let right = self.eval(right, scope)?;
                binary(*operator, &left, &right, &mut self.budget)
            }
            Expression::Concat(parts) => {
                let mut texts = Vec::new();
                for part in parts {
                    let value = self.eval(part, scope)?;
                    texts.push(text_of(&value, &mut self.budget)?);
                }
                joined(texts.iter(), &mut self.budget).map(Value::Text)
            }
            Expression::Compare(first, rest) => {
                let mut left = self.eval(first, scope)?;
                for (comparison, right) in rest {
                    let right = self.eval(right, scope)?;
                    if !compare(*comparison, &left, &right, &mut self.budget)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expression::And(left, right) => {
                let left = self.eval(left, scope)?;
                if left.is_true() {
                    self.eval(right, scope)
                } else {
                    Ok(left)
                }
            }
            Expression::Or(left, right) => {
                let left = self.eval(left, scope)?;
                if left.is_true() {
                    Ok(left)
                } else {
                    self.eval(right, scope)
                }
            }
            Expression::If(condition, then, otherwise) => {
                match (self.eval(condition, scope)?.is_true(), otherwise) {
                    (true, _) => self.eval(then, scope),
                    (false, Some(otherwise)) => self.eval(otherwise, scope),
                    (false, None) => Ok(Value::undefined(
                        "an 'if' without 'else' within an expression came out false",
                    )),
                }
            }
            other => Err(Fault::new(format!("{other:?} is no operator"))),
        }
    }

    fn all(&mut self, items: &[Expression], scope: &Rc<Scope>) -> Made<Vec<Value>> {
        self.budget.make::<Value>(items.len())?;
        items.iter().map(|item| self.eval(item, scope)).collect()
    }

    fn named(&self, name: &str, scope: &Rc<Scope>) -> Value {
        if let Some(value) = scope.get(name) {
            return value;
        }
        match GLOBALS.iter().copied().find(|known| *known == name) {
            Some(function) => Value::Function(function),
            None => Value::undefined(format!("'{name}' is undefined")),
        }
    }

    fn constant(&mut self, constant: &Constant) -> Made<Value> {
        Ok(match constant {
            Constant::None => Value::None,
            Constant::Bool(value) => Value::Bool(*value),
            Constant::Int(number) => Value::Int(*number),
            Constant::Float(float) => Value::Float(*float),
            Constant::Text(text) => {
                self.budget.make::<Letter>(text.len())?;
                Value::own(text)
            }
        })
    }

    /// `value.name`
    pub fn attribute(&mut self, value: &Value, name: &str) -> Made<Value> {
        if let Value::Undefined(reason) = value {
            return Err(Fault::new(&**reason));
        }
        if let Some(found) = attributes::attribute(value, name) {
            return Ok(found);
        }
        if let Value::Dict(dict) = value {
            self.budget.steps(1 + dict.entries().len() / 8)?;
            if let Some(found) = dict.named(name) {
                return Ok(found.clone());
            }
        }
        Ok(Value::undefined(format!(
            "a {} has no attribute '{name}'",
            value.kind()
        )))
    }

    /// `value[index]`
    pub fn item(&mut self, value: &Value, index: &Value) -> Made<Value> {
        let none = |wanted: &str| Value::undefined(format!("a {} has no {wanted}", value.kind()));
        let at = |items: &[Value]| {
            let index = index.as_int()?;
            let index = if index < 0 {
                index + items.len() as i128
            } else {
                index
            };
            items.get(usize::try_from(index).ok()?).cloned()
        };
        let found = match value {
            Value::Undefined(reason) => return Err(Fault::new(&**reason)),
            Value::Dict(dict) => {
                self.budget.steps(1 + dict.entries().len() / 8)?;
                dict.get(index).cloned()
            }
            Value::List(list) | Value::Tuple(list) => at(list.items()),
            Value::View(view) if view.is_range => at(&view.items),
            Value::Text(text) => {
                let length = text.len() as i128;
                let index = index.as_int();
                let index = index.map(|at| if at < 0 { at + length } else { at });
                let letter = index.and_then(|at| text.letters().get(usize::try_from(at).ok()?));
                letter.map(|letter| Value::Text([*letter].into_iter().collect()))
            }
            _ => None,
        };
        Ok(match (found, index) {
            (Some(found), _) => found,
            (None, Value::Text(name)) => {
                let name = name.to_string();
                let found = attributes::attribute(value, &name);
                found.unwrap_or_else(|| none(&format!("attribute '{name}'")))
            }
            (None, _) => none("such element"),
        })
    }

    /// Calls what an expression names, with a caller for a macro.
    pub fn call_with(
        &mut self,
        expression: &Expression,
        caller: Option<Value>,
        scope: &Rc<Scope>,
    ) -> Made<Value> {
        let Expression::Call(called, arguments) = expression else {
            return Err(Fault::new("'call' needs a call of a macro"));
        };
        let name = match &**called {
            Expression::Name(name) | Expression::Attribute(_, name) => name.as_str(),
            _ => "a function",
        };
        let function = self.eval(called, scope)?;
        let mut given = self.given(name, arguments, scope)?;
        given
            .named
            .extend(caller.map(|caller| ("caller".to_string(), caller)));
        self.call(&function, given)
    }

    /// The values of arguments.
    pub fn given(&mut self, name: &str, arguments: &Arguments, scope: &Rc<Scope>) -> Made<Given> {
        let mut given = Given::none(name);
        for value in self.all(&arguments.values, scope)? {
            given.values.push(Some(value));
        }
        if let Some(more) = &arguments.more {
            let more = self.eval(more, scope)?.iterate(&mut self.budget)?;
            given.values.extend(more.into_iter().map(Some));
        }
        for (name, value) in &arguments.named {
            let value = self.eval(value, scope)?;
            given.named.push((name.clone(), value));
        }
        if let Some(more) = &arguments.more_named {
            let Value::Dict(dict) = self.eval(more, scope)? else {
                return Err(Fault::new(format!("{name}: what follows ** is no dict")));
            };
            for (key, value) in dict.entries() {
                self.budget.make::<(String, Value)>(1)?;
                let key = text_of(key, &mut self.budget)?.to_string();
                given.named.push((key, value.clone()));
            }
        }
        Ok(given)
    }

    /// A filter on a value.
    pub fn filter(&mut self, value: Value, filter: &Filter, scope: &Rc<Scope>) -> Made<Value> {
        let given = self.given(&filter.name, &filter.arguments, scope)?;
        self.apply(value, given)
    }
}

fn slice_part(value: &Value) -> Made<Option<i128>> {
    match (value, value.as_int()) {
        (Value::None, _) => Ok(None),
        (_, Some(number)) => Ok(Some(number)),
        _ => Err(Fault::new("slice indices must be integers or None")),
    }
}
