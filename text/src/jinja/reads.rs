//! Finds what a template may read of its input, without running it.
//!
//! Of variables, these are all names in it. Of messages, these are fields: a walk follows where the
//! list `messages` and its items go, through loops, assignments, macros and filters. Where it
//! cannot follow, as when a message is printed or its keys are looped over, all fields count as
//! read.

mod holds;

use std::collections::{BTreeMap, BTreeSet};

use super::syntax::{
    Arguments, AssignTarget, Binary, Body, Comparison, Constant, Expression, Filter, For,
    MacroSyntax, Statement, StatementKind,
};
use holds::Holds;

/// Walks over the template: each follows values at least one name further. If that is not enough,
/// all fields count as read.
const WALKS_MAX: usize = 32;

/// How deep the walk follows nested expressions. What is nested deeper may read anything.
const DEPTH_MAX: u32 = 400;

/// The variable with the list of messages.
const MESSAGES: &str = "messages";

/// Filters that give some of the items of a list, in any order.
const SOME_OF: [&str; 9] = [
    "list",
    "reverse",
    "sort",
    "unique",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "safe",
];

/// Filters that give an item of a list.
const ONE_OF: [&str; 4] = ["first", "last", "min", "max"];

/// What a template may read.
#[derive(Debug, Default)]
pub struct TemplateReads {
    variables: BTreeSet<String>,
    fields: BTreeSet<String>,
    all_fields: bool,
    all_variables: bool,
    marks_answers: bool,
}

impl TemplateReads {
    /// What `body` may read.
    pub fn of(body: &Body) -> Self {
        let mut walk = Walk::default();
        walk.holds.insert(MESSAGES.to_string(), Holds::LIST);
        for _ in 0..WALKS_MAX {
            walk.has_changed = false;
            walk.body(body);
            if !walk.has_changed || walk.reads.all_fields {
                return walk.reads;
            }
        }
        walk.reads.all_fields = true;
        walk.reads
    }

    /// Whether it may look at the variable of this name.
    pub fn has_variable(&self, name: &str) -> bool {
        self.all_variables || self.variables.contains(name)
    }

    /// Whether it marks what an assistant says with `{% generation %}`.
    pub fn marks_answers(&self) -> bool {
        self.marks_answers
    }

    /// Whether it may look at the field of this name of a message.
    pub fn has_message_field(&self, name: &str) -> bool {
        self.all_fields || self.fields.contains(name)
    }
}

#[derive(Default)]
struct Walk {
    reads: TemplateReads,
    /// What variables may hold, by name; for attributes of a namespace by "." and their name.
    /// Scopes are not told apart.
    holds: BTreeMap<String, Holds>,
    /// Parameters of macros, by the macro's name.
    macros: BTreeMap<String, BTreeSet<Vec<String>>>,
    has_changed: bool,
    depth: u32,
}

impl Walk {
    fn body(&mut self, body: &Body) {
        for Statement { kind, .. } in body {
            self.statement(kind);
        }
    }

    fn statement(&mut self, kind: &StatementKind) {
        match kind {
            StatementKind::Text(_) | StatementKind::Break | StatementKind::Continue => {}
            StatementKind::Print(value) => self.whole(value),
            StatementKind::For(looped) => self.looped(looped),
            StatementKind::If {
                branches,
                otherwise,
            } => {
                for (condition, body) in branches {
                    self.value(condition);
                    self.body(body);
                }
                self.body(otherwise);
            }
            StatementKind::Set(target, value) => {
                let holds = self.value(value);
                self.assign(target, holds);
            }
            StatementKind::SetBlock(_, filters, body)
            | StatementKind::FilterBlock(filters, body) => {
                filters.iter().for_each(|filter| {
                    self.arguments(&filter.arguments);
                });
                self.body(body);
            }
            StatementKind::Macro(syntax) => {
                let names = syntax.parameters.iter().map(|(name, _)| name.clone());
                let known = self.macros.entry(syntax.name.clone()).or_default();
                self.has_changed |= known.insert(names.collect());
                self.macro_body(syntax);
            }
            StatementKind::Call(syntax, called) => {
                self.whole(called);
                self.macro_body(syntax);
            }
            StatementKind::With(values, body) => {
                for (target, value) in values {
                    let holds = self.value(value);
                    self.assign(target, holds);
                }
                self.body(body);
            }
            StatementKind::Generation(body) => {
                self.reads.marks_answers = true;
                self.body(body);
            }
        }
    }

    fn looped(&mut self, looped: &For) {
        let over = self.value(&looped.over);
        if over.message {
            self.give_up();
        }
        self.assign(&looped.target, over.item());
        if let Some(condition) = &looped.condition {
            self.value(condition);
        }
        self.body(&looped.body);
        self.body(&looped.otherwise);
    }

    fn macro_body(&mut self, syntax: &MacroSyntax) {
        for (name, default) in &syntax.parameters {
            if let Some(default) = default {
                let holds = self.value(default);
                self.note(name, holds);
            }
        }
        self.body(&syntax.body);
    }

    fn give_up(&mut self) {
        self.reads.all_fields = true;
    }

    fn note(&mut self, name: &str, holds: Holds) {
        if !holds.anything() {
            return;
        }
        let known = self.holds.entry(name.to_string()).or_default();
        let joined = known.or(holds);
        self.has_changed |= *known != joined;
        *known = joined;
    }

    fn assign(&mut self, target: &AssignTarget, holds: Holds) {
        match target {
            AssignTarget::Name(name) => self.note(name, holds),
            AssignTarget::Attribute(_, name) => self.note(&format!(".{name}"), holds),
            // The parts of a message, or of a list of them.
            AssignTarget::Tuple(_) if holds.anything() => self.give_up(),
            AssignTarget::Tuple(_) => {}
        }
    }

    fn field(&mut self, path: &str) {
        let parts = path.split('.').map(str::to_string);
        self.reads.fields.extend(parts);
    }

    /// A value of which all may be read.
    fn whole(&mut self, value: &Expression) {
        if self.value(value).anything() {
            self.give_up();
        }
    }

    fn value(&mut self, value: &Expression) -> Holds {
        if self.depth == DEPTH_MAX {
            self.give_up();
            self.reads.all_variables = true;
            return Holds::NOTHING;
        }
        self.depth += 1;
        let holds = self.expression(value);
        self.depth -= 1;
        holds
    }

    fn expression(&mut self, value: &Expression) -> Holds {
        match value {
            Expression::Name(name) => {
                self.reads.variables.insert(name.clone());
                self.holds.get(name).copied().unwrap_or_default()
            }
            Expression::Constant(_) => Holds::NOTHING,
            Expression::List(items) | Expression::Tuple(items) => self.list(items),
            Expression::Dict(entries) => {
                for (key, value) in entries {
                    self.whole(key);
                    self.whole(value);
                }
                Holds::NOTHING
            }
            Expression::Attribute(of, name) => self.attribute(of, name),
            Expression::Item(of, index) => self.item(of, index),
            Expression::Slice(of, parts) => {
                parts.iter().flatten().for_each(|part| self.whole(part));
                let of = self.value(of);
                if of.message {
                    self.give_up();
                }
                of
            }
            Expression::Call(called, arguments) => self.call(called, arguments),
            Expression::Filter(None, filter) => {
                self.whole_arguments(&filter.arguments);
                Holds::NOTHING
            }
            Expression::Filter(Some(of), filter) => {
                let of = self.value(of);
                self.filter(of, filter)
            }
            Expression::Test(value, test) => self.test(value, test),
            Expression::Not(value) => {
                self.value(value);
                Holds::NOTHING
            }
            Expression::Sign(_, value) => {
                self.whole(value);
                Holds::NOTHING
            }
            Expression::Binary(operator, left, right) => {
                let both = self.value(left).or(self.value(right));
                if both.message || both.list && *operator != Binary::Add {
                    self.give_up();
                }
                both
            }
            Expression::Concat(parts) => {
                parts.iter().for_each(|part| self.whole(part));
                Holds::NOTHING
            }
            Expression::Compare(first, rest) => self.compare(first, rest),
            Expression::And(left, right) | Expression::Or(left, right) => {
                self.value(left).or(self.value(right))
            }
            Expression::If(condition, then, otherwise) => {
                self.value(condition);
                let then = self.value(then);
                let otherwise = otherwise.as_ref().map(|value| self.value(value));
                then.or(otherwise.unwrap_or_default())
            }
        }
    }

    fn list(&mut self, items: &[Expression]) -> Holds {
        let mut holds = Holds::NOTHING;
        for item in items {
            let item = self.value(item);
            if item.list {
                self.give_up();
            }
            if item.message {
                holds = Holds::LIST;
            }
        }
        holds
    }

    fn attribute(&mut self, of: &Expression, name: &str) -> Holds {
        if self.value(of).message {
            self.field(name);
        }
        let noted = self.holds.get(&format!(".{name}")).copied();
        match name {
            // Of a loop, whichever list that goes over.
            "previtem" | "nextitem" => Holds::MESSAGE,
            _ => noted.unwrap_or_default(),
        }
    }

    fn item(&mut self, of: &Expression, index: &Expression) -> Holds {
        let of = self.value(of);
        self.whole(index);
        match index {
            Expression::Constant(Constant::Text(name)) => {
                if of.message {
                    self.field(name);
                }
                let noted = self.holds.get(&format!(".{name}")).copied();
                noted.unwrap_or_default()
            }
            Expression::Constant(_) => of.item(),
            _ => {
                if of.message {
                    self.give_up();
                }
                of.item()
            }
        }
    }

    fn call(&mut self, called: &Expression, arguments: &Arguments) -> Holds {
        match called {
            Expression::Name(name) if name == "namespace" => {
                for (name, value) in &arguments.named {
                    let holds = self.value(value);
                    self.note(&format!(".{name}"), holds);
                }
                arguments.values.iter().for_each(|value| self.whole(value));
                let more = [&arguments.more, &arguments.more_named];
                more.into_iter().flatten().for_each(|more| self.whole(more));
            }
            Expression::Name(name) if self.macros.contains_key(name) => {
                self.reads.variables.insert(name.clone());
                self.macro_call(name, arguments);
            }
            // A method: of a message, `get` of a known name is a look at a field.
            Expression::Attribute(of, method) => {
                let holds = self.value(of);
                let known = match arguments.values.first() {
                    Some(Expression::Constant(Constant::Text(name))) if method == "get" => {
                        Some(name)
                    }
                    _ => None,
                };
                match known {
                    Some(name) if holds == Holds::MESSAGE => self.field(name),
                    _ if holds.anything() => self.give_up(),
                    _ => {}
                }
                self.whole_arguments(arguments);
            }
            other => {
                self.whole(other);
                self.whole_arguments(arguments);
            }
        }
        Holds::NOTHING
    }

    fn macro_call(&mut self, name: &str, arguments: &Arguments) {
        let known = self.macros.get(name).cloned().unwrap_or_default();
        for (index, value) in arguments.values.iter().enumerate() {
            let holds = self.value(value);
            for parameters in &known {
                match parameters.get(index) {
                    Some(parameter) => self.note(parameter, holds),
                    None if holds.anything() => self.give_up(),
                    None => {}
                }
            }
        }
        for (parameter, value) in &arguments.named {
            let holds = self.value(value);
            self.note(parameter, holds);
        }
        let more = [&arguments.more, &arguments.more_named];
        more.into_iter().flatten().for_each(|more| self.whole(more));
    }

    fn filter(&mut self, of: Holds, filter: &Filter) -> Holds {
        let arguments = &filter.arguments;
        let name = filter.name.as_str();
        if !of.anything() || matches!(name, "length" | "count") {
            self.whole_arguments(arguments);
            return Holds::NOTHING;
        }
        if matches!(name, "default" | "d") {
            return of.or(self.arguments(arguments));
        }
        if name == "attr" && of.message || of.list && !of.message {
            let positional = arguments.values.iter();
            let named = arguments.named.iter().map(|(_, value)| value);
            let names_of_fields = match name {
                // Its arguments name other filters, unless it has `attribute`.
                "map" => arguments.values.is_empty(),
                _ => SOME_OF.contains(&name) || ONE_OF.contains(&name) || name == "attr",
            };
            let mut all_known = arguments.more.is_none() && arguments.more_named.is_none();
            for value in positional.chain(named) {
                match value {
                    Expression::Constant(Constant::Text(name)) => self.field(name),
                    Expression::Constant(_) => {}
                    other => {
                        self.whole(other);
                        // What a field is compared with may be anything.
                        all_known &= matches!(name, "selectattr" | "rejectattr");
                    }
                }
            }
            let first_known = match arguments.values.first() {
                Some(Expression::Constant(_)) | None => true,
                Some(_) => false,
            };
            if names_of_fields && all_known && first_known {
                return match name {
                    name if SOME_OF.contains(&name) => of,
                    name if ONE_OF.contains(&name) => Holds::MESSAGE,
                    _ => Holds::NOTHING,
                };
            }
        }
        self.whole_arguments(arguments);
        self.give_up();
        of
    }

    fn test(&mut self, value: &Expression, test: &Filter) -> Holds {
        self.value(value);
        let within = self.arguments(&test.arguments);
        if within.message && test.name == "in" {
            self.within(value);
        }
        Holds::NOTHING
    }

    fn compare(&mut self, first: &Expression, rest: &[(Comparison, Expression)]) -> Holds {
        self.value(first);
        let mut left = first;
        for (comparison, right) in rest {
            let holds = self.value(right);
            if holds.message && matches!(comparison, Comparison::In | Comparison::NotIn) {
                self.within(left);
            }
            left = right;
        }
        Holds::NOTHING
    }

    /// A value that is looked for among the names of a message's fields.
    fn within(&mut self, value: &Expression) {
        match value {
            Expression::Constant(Constant::Text(name)) => self.field(name),
            _ => self.give_up(),
        }
    }

    fn whole_arguments(&mut self, arguments: &Arguments) {
        if self.arguments(arguments).anything() {
            self.give_up();
        }
    }

    fn arguments(&mut self, arguments: &Arguments) -> Holds {
        let mut holds = Holds::NOTHING;
        let named = arguments.named.iter().map(|(_, value)| value);
        let more = [&arguments.more, &arguments.more_named];
        let more = more.into_iter().flatten().map(|more| &**more);
        for value in arguments.values.iter().chain(named).chain(more) {
            holds = holds.or(self.value(value));
        }
        holds
    }
}
