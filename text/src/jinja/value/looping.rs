//! The variable `loop`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::Value;
use super::function::Given;
use super::scope::Scope;
use crate::jinja::budget::Budget;
use crate::jinja::fault::{Fault, Made};
use crate::jinja::syntax::For;

/// A loop in progress.
#[derive(Debug)]
pub struct Loop {
    pub syntax: Arc<For>,
    /// The scope around the loop.
    pub scope: Rc<Scope>,
    pub items: Vec<Value>,
    pub at: Cell<usize>,
    /// From 0.
    pub depth: u32,
    pub last: RefCell<Option<Vec<Value>>>,
}

impl Loop {
    /// How many turns it has.
    pub fn length(&self) -> usize {
        self.items.len()
    }

    /// `loop.name`
    pub fn attribute(&self, name: &str) -> Option<Value> {
        let (at, length) = (self.at.get(), self.length());
        let number = |number: usize| Some(Value::Int(number as i128));
        let neighbour = |item: Option<&Value>, which: &str| {
            let none = || Value::undefined(format!("there is no {which} item"));
            Some(item.cloned().unwrap_or_else(none))
        };
        match name {
            "index" => number(at + 1),
            "index0" => number(at),
            "revindex" => number(length - at),
            "revindex0" => number(length - at - 1),
            "first" => Some(Value::Bool(at == 0)),
            "last" => Some(Value::Bool(at + 1 == length)),
            "length" => number(length),
            "depth" => number(self.depth as usize + 1),
            "depth0" => number(self.depth as usize),
            "previtem" => neighbour(
                at.checked_sub(1).and_then(|at| self.items.get(at)),
                "previous",
            ),
            "nextitem" => neighbour(self.items.get(at + 1), "next"),
            _ => None,
        }
    }

    /// `loop.cycle(..)`
    pub fn cycle(&self, mut given: Given) -> Made<Value> {
        let mut values = given.rest();
        given.finish()?;
        if values.is_empty() {
            return Err(Fault::new("no items for cycling given"));
        }
        let at = self.at.get() % values.len();
        Ok(values.swap_remove(at))
    }

    /// `loop.changed(..)`: whether these are other values than in the call before.
    pub fn changed(&self, mut given: Given, budget: &mut Budget) -> Made<Value> {
        let values = given.rest();
        let costs = values.iter().map(Value::cost);
        budget.steps(costs.fold(0, usize::saturating_add))?;
        given.finish()?;
        let mut last = self.last.borrow_mut();
        let is_same = last.as_ref().is_some_and(|last| {
            last.len() == values.len() && last.iter().zip(&values).all(|(a, b)| a.equals(b))
        });
        *last = Some(values);
        Ok(Value::Bool(!is_same))
    }
}
