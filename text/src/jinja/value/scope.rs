//! Variables, and where they are seen.

use std::cell::RefCell;
use std::rc::Rc;

use super::Value;

/// The variables of a loop's turn, a macro or a block, with those around it.
#[derive(Debug, Default)]
pub struct Scope {
    names: RefCell<Vec<(String, Value)>>,
    around: Option<Rc<Scope>>,
}

impl Scope {
    /// One within another.
    pub fn within(around: &Rc<Scope>) -> Rc<Self> {
        Rc::new(Self {
            names: RefCell::default(),
            around: Some(around.clone()),
        })
    }

    /// Sets a variable here.
    pub fn set(&self, name: &str, value: Value) {
        let mut names = self.names.borrow_mut();
        match names.iter_mut().find(|(known, _)| known == name) {
            Some((_, own)) => *own = value,
            None => names.push((name.to_string(), value)),
        }
    }

    /// The innermost variable of this name.
    pub fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            let names = scope.names.borrow();
            if let Some((_, value)) = names.iter().find(|(known, _)| known == name) {
                return Some(value.clone());
            }
            drop(names);
            scope = scope.around.as_deref()?;
        }
    }

    /// Forgets all variables here. A macro holds the scope that it is defined in, which holds the
    /// macro: this cycle must be broken to free both.
    pub fn clear(&self) {
        let names = std::mem::take(&mut *self.names.borrow_mut());
        drop(names);
    }
}
