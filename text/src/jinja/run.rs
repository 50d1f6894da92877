//! Runs the tags of a template.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::budget::Budget;
use super::fault::{Fault, Made};
use super::letters::{Letter, Text};
use super::print::text_of;
use super::syntax::{AssignTarget, Body, Expression, Filter, For, Statement, StatementKind};
use super::value::{Loop, Macro, Namespace, Scope, Value};

/// A rendering in progress.
#[derive(Default)]
pub struct Rendering {
    pub budget: Budget,
    /// What the clock shows, as time since 1970; the machine's where there is none.
    pub now: Option<Duration>,
    out: Vec<Letter>,
    /// All namespaces, to be emptied at the end: they may hold each other.
    namespaces: Vec<Rc<Namespace>>,
}

/// Where the rendering goes on after a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl Rendering {
    /// The output of a template for these variables, at a time.
    pub fn whole(
        body: &Body,
        variables: Vec<(String, Value)>,
        now: Option<Duration>,
    ) -> Made<Vec<Letter>> {
        let mut run = Self {
            now,
            ..Self::default()
        };
        let scope = Rc::new(Scope::default());
        for (name, value) in variables {
            scope.set(&name, value);
        }
        let done = run.body(body, &scope);
        scope.clear();
        for namespace in run.namespaces {
            let entries = std::mem::take(&mut *namespace.entries.borrow_mut());
            drop(entries);
        }
        done?;
        Ok(run.out)
    }

    /// A namespace that will be emptied at the end.
    pub fn namespace(&mut self) -> Made<Rc<Namespace>> {
        self.budget.make::<Namespace>(1)?;
        let namespace = Rc::new(Namespace::default());
        self.namespaces.push(namespace.clone());
        Ok(namespace)
    }

    /// What a body gives out, as a value.
    pub fn captured(&mut self, body: &Body, scope: &Rc<Scope>) -> Made<Text> {
        let outer = std::mem::take(&mut self.out);
        let flow = self.body(body, scope);
        let inner = std::mem::replace(&mut self.out, outer);
        flow?;
        Ok(inner.into())
    }

    /// The same, with variables of its own.
    fn captured_within(&mut self, body: &Body, scope: &Rc<Scope>) -> Made<Text> {
        let inner = Scope::within(scope);
        let text = self.captured(body, &inner);
        // A macro defined in it holds the scope, and the scope holds the macro.
        inner.clear();
        text
    }

    fn body(&mut self, body: &Body, scope: &Rc<Scope>) -> Made<Flow> {
        for statement in body {
            self.budget
                .enter()
                .map_err(|fault| fault.at(statement.line))?;
            let flow = self.statement(statement, scope);
            self.budget.leave();
            let flow = flow.map_err(|fault| fault.at(statement.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &Statement, scope: &Rc<Scope>) -> Made<Flow> {
        match &statement.kind {
            StatementKind::Text(text) => {
                self.budget.make::<Letter>(text.len())?;
                self.out.extend(text.chars().map(Letter::own));
            }
            StatementKind::Print(value) => {
                let value = self.eval(value, scope)?;
                self.print(&value)?;
            }
            StatementKind::For(syntax) => {
                let over = self.eval(&syntax.over, scope)?;
                return self.for_loop(syntax, over, scope, 0);
            }
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
            StatementKind::If {
                branches,
                otherwise,
            } => {
                for (condition, body) in branches {
                    if self.eval(condition, scope)?.is_true() {
                        return self.body(body, scope);
                    }
                }
                return self.body(otherwise, scope);
            }
            StatementKind::Set(target, value) => {
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope)?;
            }
            StatementKind::SetBlock(target, filters, body) => {
                let text = self.captured_within(body, scope)?;
                let value = self.filtered(Value::Text(text), filters, scope)?;
                self.assign(target, value, scope)?;
            }
            other => return self.block(other, scope),
        }
        Ok(Flow::Next)
    }

    /// Runs tags with a body that are neither loops nor conditions.
    fn block(&mut self, kind: &StatementKind, scope: &Rc<Scope>) -> Made<Flow> {
        match kind {
            StatementKind::Macro(syntax) => {
                let made = Macro {
                    syntax: syntax.clone(),
                    scope: scope.clone(),
                };
                scope.set(&syntax.name, Value::Macro(Rc::new(made)));
            }
            StatementKind::Call(syntax, called) => {
                let caller = Value::Macro(Rc::new(Macro {
                    syntax: syntax.clone(),
                    scope: scope.clone(),
                }));
                let value = self.call_with(called, Some(caller), scope)?;
                self.print(&value)?;
            }
            StatementKind::FilterBlock(filters, body) => {
                let text = self.captured_within(body, scope)?;
                let value = self.filtered(Value::Text(text), filters, scope)?;
                self.print(&value)?;
            }
            StatementKind::With(values, body) => {
                let inner = Scope::within(scope);
                for (target, value) in values {
                    let value = self.eval(value, scope)?;
                    self.assign(target, value, &inner)?;
                }
                let flow = self.body(body, &inner);
                inner.clear();
                return flow;
            }
            StatementKind::Generation(body) => {
                let inner = Scope::within(scope);
                let start = self.out.len();
                let flow = self.body(body, &inner);
                inner.clear();
                for letter in &mut self.out[start..] {
                    *letter = letter.generated();
                }
                return flow;
            }
            // Handled by `statement`.
            StatementKind::Text(_)
            | StatementKind::Print(_)
            | StatementKind::For(_)
            | StatementKind::If { .. }
            | StatementKind::Set(..)
            | StatementKind::SetBlock(..)
            | StatementKind::Break
            | StatementKind::Continue => {}
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, value: &Value) -> Made<()> {
        let text = text_of(value, &mut self.budget)?;
        self.budget.make::<Letter>(text.len())?;
        self.out.extend_from_slice(text.letters());
        Ok(())
    }

    fn filtered(&mut self, mut value: Value, filters: &[Filter], scope: &Rc<Scope>) -> Made<Value> {
        for filter in filters {
            value = self.filter(value, filter, scope)?;
        }
        Ok(value)
    }

    fn for_loop(
        &mut self,
        syntax: &Arc<For>,
        over: Value,
        scope: &Rc<Scope>,
        depth: u32,
    ) -> Made<Flow> {
        let mut items = over.iterate(&mut self.budget)?;
        if let Some(condition) = &syntax.condition {
            items = self.chosen(syntax, condition, items, scope)?;
        }
        if items.is_empty() {
            let inner = Scope::within(scope);
            let flow = self.body(&syntax.otherwise, &inner);
            inner.clear();
            return flow;
        }
        let state = Rc::new(Loop {
            syntax: syntax.clone(),
            scope: scope.clone(),
            items,
            at: Cell::new(0),
            depth,
            last: RefCell::default(),
        });
        for (index, item) in state.items.iter().enumerate() {
            self.budget.steps(1)?;
            state.at.set(index);
            let inner = Scope::within(scope);
            inner.set("loop", Value::Loop(state.clone()));
            self.assign(&syntax.target, item.clone(), &inner)?;
            let flow = self.body(&syntax.body, &inner);
            inner.clear();
            if flow? == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    /// Those items that a loop's `if` lets through.
    fn chosen(
        &mut self,
        syntax: &For,
        condition: &Expression,
        items: Vec<Value>,
        scope: &Rc<Scope>,
    ) -> Made<Vec<Value>> {
        let mut chosen = Vec::new();
        for item in items {
            self.budget.steps(1)?;
            let inner = Scope::within(scope);
            self.assign(&syntax.target, item.clone(), &inner)?;
            if self.eval(condition, &inner)?.is_true() {
                chosen.push(item);
            }
        }
        Ok(chosen)
    }

    /// `loop(items)`: the loop again, one level deeper.
    pub fn loop_again(&mut self, state: &Loop, over: Value) -> Made<Value> {
        if !state.syntax.is_recursive {
            return Err(Fault::new(
                "the loop is called but has no 'recursive' marker",
            ));
        }
        let outer = std::mem::take(&mut self.out);
        let flow = self.for_loop(&state.syntax, over, &state.scope, state.depth + 1);
        let inner = std::mem::replace(&mut self.out, outer);
        flow?;
        Ok(Value::Text(inner.into()))
    }

    fn assign(&mut self, target: &AssignTarget, value: Value, scope: &Rc<Scope>) -> Made<()> {
        match target {
            AssignTarget::Name(name) => {
                scope.set(name, value);
                Ok(())
            }
            AssignTarget::Attribute(name, attribute) => match scope.get(name) {
                Some(Value::Namespace(namespace)) => value.keep_in(&namespace, attribute),
                _ => Err(Fault::new(format!(
                    "cannot assign attribute '{attribute}' on '{name}': it is no namespace"
                ))),
            },
            AssignTarget::Tuple(targets) => {
                let values = value.iterate(&mut self.budget)?;
                let (wanted, found) = (targets.len(), values.len());
                if wanted != found {
                    return Err(Fault::new(format!(
                        "{found} values cannot be unpacked into {wanted} names"
                    )));
                }
                let mut pairs = targets.iter().zip(values);
                pairs.try_for_each(|(target, value)| self.assign(target, value, scope))
            }
        }
    }
}
