//! What a template may ever read of what it is given, found without running it.
//!
//! Of variables, the names that stand in it. Of messages, the fields: a walk follows where the
//! list `messages` and its items go, through loops, assignments, macros and filters. Where it
//! cannot follow, as when a message is printed or its keys are looped over, all fields are read.

use std::collections::{BTreeMap, BTreeSet};

use super::syntax::{
    Arguments, Binary, Body, Comparison, Constant, Expression, Filter, For, MacroSyntax, Statement,
    StatementKind, Target,
};

/// Walks after which the fields are given up: each one follows values a name further at least.
const WALKS_MAX: usize = 32;

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
pub struct Reads {
    variables: BTreeSet<String>,
    fields: BTreeSet<String>,
    all_fields: bool,
}

impl Reads {
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
        self.variables.contains(name)
    }

    /// Whether it may look at the field of this name of a message.
    pub fn has_message_field(&self, name: &str) -> bool {
        self.all_fields || self.fields.contains(name)
    }
}

/// Which parts of the conversation a value may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holds {
    /// A list of messages.
    list: bool,
    /// A message.
    message: bool,
}

impl Holds {
    const NOTHING: Self = Self {
        list: false,
        message: false,
    };
    const LIST: Self = Self {
        list: true,
        message: false,
    };
    const MESSAGE: Self = Self {
        list: false,
        message: true,
    };

    fn or(self, other: Self) -> Self {
        Self {
            list: self.list || other.list,
            message: self.message || other.message,
        }
    }

    fn anything(self) -> bool {
        self != Self::NOTHING
    }

    /// What an item of it is, where it is a list.
    fn item(self) -> Self {
        match self.list {
            true => Self::MESSAGE,
            false => Self::NOTHING,
        }
    }
}

#[derive(Default)]
struct Walk {
    reads: Reads,
    /// By the name of a variable, and by "." and that of an attribute of a namespace. Scopes are
    /// not told apart.
    holds: BTreeMap<String, Holds>,
    /// Parameters of macros, by the macro's name.
    macros: BTreeMap<String, BTreeSet<Vec<String>>>,
    has_changed: bool,
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
            StatementKind::Generation(body) => self.body(body),
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

    fn assign(&mut self, target: &Target, holds: Holds) {
        match target {
            Target::Name(name) => self.note(name, holds),
            Target::Attribute(_, name) => self.note(&format!(".{name}"), holds),
            // The parts of a message, or of a list of them.
            Target::Tuple(_) if holds.anything() => self.give_up(),
            Target::Tuple(_) => {}
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
                let constant = match arguments.values.first() {
                    Some(Expression::Constant(Constant::Text(name))) => Some(name),
                    _ => None,
                };
                match constant {
                    Some(name) if method == "get" => {
                        if holds.message {
                            self.field(name);
                        }
                    }
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
                // Its words are those of other filters, unless it names a field.
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
