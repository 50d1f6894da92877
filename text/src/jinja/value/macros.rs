//! Macros as values.

use std::rc::Rc;
use std::sync::Arc;

use super::scope::Scope;
use crate::jinja::syntax::MacroSyntax;

/// A macro, or the body of a call, with the variables around it.
#[derive(Debug)]
pub struct Macro {
    pub syntax: Arc<MacroSyntax>,
    pub scope: Rc<Scope>,
}
