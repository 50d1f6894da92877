//! What a template works with: Python's values, as far as templates can see them.

mod function;
mod looping;
mod macros;
mod scope;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::budget::Budget;
use super::fault::{Fault, Made};
use super::letters::{LetterOrigin, Text};

pub use function::{Callable, Function, Given};
pub use looping::Loop;
pub use macros::Macro;
pub use scope::Scope;

/// How deep lists may be nested.
const NESTING_MAX: u32 = 150;

/// How deep tuples in a key may be nested.
const KEY_DEPTH_MAX: u32 = 8;

/// Bytes that the text of a key may have.
const KEY_BYTES_MAX: usize = 64 << 10;

/// Values that a list may hold, nested ones included: one list may be an item of many.
const WEIGHT_MAX: u64 = 16 << 20;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// An undefined value, and why it is: printed as an empty text, refused by almost everything
    /// else.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Text),
    List(Rc<ValueSequence>),
    Tuple(Rc<ValueSequence>),
    Dict(Rc<Dict>),
    View(Rc<View>),
    /// A generator, which can be iterated once, such as the result of `map`.
    Once(Rc<RefCell<VecDeque<Value>>>),
    Namespace(Rc<Namespace>),
    Loop(Rc<Loop>),
    Macro(Rc<Macro>),
    /// A method that was looked up and not called yet.
    Method(Rc<(Value, Function)>),
    Function(Function),
    /// A `joiner` or `cycler`.
    Callable(Rc<Callable>),
}

/// The values of a list.
#[derive(Debug)]
pub struct ValueSequence {
    items: Vec<Value>,
    extent: Extent,
}

/// Values by keys, in the order in which the keys came.
#[derive(Debug)]
pub struct Dict {
    entries: Vec<(Value, Value)>,
    extent: Extent,
}

/// How much a value holds.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    depth: u32,
    weight: u64,
    /// Steps for a comparison with a like value.
    cost: u64,
}

/// What `keys()`, `values()`, `items()` and `range()` give.
#[derive(Debug)]
pub struct View {
    /// `dict_items` and the like, or the whole of `range(0, 3)`.
    pub name: String,
    pub items: Vec<Value>,
    /// Whether it has an order and indices: a range.
    pub is_range: bool,
}

/// Variables that tags may set.
#[derive(Debug, Default)]
pub struct Namespace {
    pub entries: RefCell<Vec<(String, Value)>>,
    pub depth: Cell<u32>,
}

impl Extent {
    /// The same with one more value within it.
    fn with(self, inner: Self) -> Self {
        Self {
            depth: self.depth.max(1 + inner.depth),
            weight: self.weight.saturating_add(inner.weight),
            cost: self.cost.saturating_add(inner.cost),
        }
    }
}

fn extent<'a>(values: impl Iterator<Item = &'a Value>) -> Made<Extent> {
    let mut whole = Extent {
        depth: 1,
        weight: 1,
        cost: 1,
    };
    for inner in values.map(Value::extent) {
        whole = whole.with(inner);
    }
    match whole.depth > NESTING_MAX || whole.weight > WEIGHT_MAX {
        true => Err(Fault::new(
            "its lists hold too much, or stand too deep in each other",
        )),
        false => Ok(whole),
    }
}

impl ValueSequence {
    /// A list of these values.
    pub fn new(items: Vec<Value>) -> Made<Rc<Self>> {
        let extent = extent(items.iter())?;
        Ok(Rc::new(Self { items, extent }))
    }

    /// Its values.
    pub fn items(&self) -> &[Value] {
        &self.items
    }
}

impl Dict {
    /// A dict of these entries; of entries with the same key, the last value at the place of the
    /// first.
    pub fn new(pairs: Vec<(Value, Value)>) -> Made<Rc<Self>> {
        let mut extent = extent(pairs.iter().map(|(_, value)| value))?;
        // Each key is looked for among all of the other's.
        let keys = pairs.iter().map(|(key, _)| key.extent().cost);
        let keys = keys.fold(0, u64::saturating_add);
        let looks = keys.saturating_mul(pairs.len() as u64) / 8;
        extent.cost = extent.cost.saturating_add(looks);
        let mut entries: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
        let mut known: std::collections::HashMap<String, usize> = Default::default();
        for (key, value) in pairs {
            let name = key_name(&key)?;
            match known.get(&name) {
                Some(at) => entries[*at].1 = value,
                None => {
                    known.insert(name, entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(Rc::new(Self { entries, extent }))
    }

    /// Its entries.
    pub fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    /// The value of a key.
    pub fn get(&self, key: &Value) -> Option<&Value> {
        let found = self.entries.iter().find(|(own, _)| own.equals(key));
        found.map(|(_, value)| value)
    }

    /// The value of a name.
    pub fn named(&self, name: &str) -> Option<&Value> {
        let is_name = |key: &Value| matches!(key, Value::Text(text) if text.is(name));
        let found = self.entries.iter().find(|(key, _)| is_name(key));
        found.map(|(_, value)| value)
    }
}

/// A text for a key: the same for equal keys, and for no others.
pub fn key_name(key: &Value) -> Made<String> {
    let mut room = KEY_BYTES_MAX;
    named_key(key, KEY_DEPTH_MAX, &mut room)
}

fn named_key(key: &Value, depth: u32, room: &mut usize) -> Made<String> {
    let large = || Fault::new("a dict or set has a key that is so large: such ones are not kept");
    // Before it is copied: a text has as many bytes as characters, or more.
    let least = match key {
        Value::Text(text) => text.len() + 1,
        _ => 1,
    };
    *room = room.checked_sub(least).ok_or_else(large)?;
    Ok(match key {
        Value::Text(text) => format!("s{text}"),
        Value::Bool(true) => "i1".to_string(),
        Value::Bool(false) => "i0".to_string(),
        Value::Int(number) => format!("i{number}"),
        Value::Float(float) if float.fract() == 0.0 && float.abs() < 1e30 => {
            format!("i{}", *float as i128)
        }
        Value::Float(float) => format!("f{float:e}"),
        Value::None => "n".to_string(),
        Value::Tuple(tuple) => {
            let depth = depth.checked_sub(1).ok_or_else(large)?;
            let mut name = String::from("t");
            for item in tuple.items() {
                let item = named_key(item, depth, room)?;
                // With its length: no two tuples have the same text.
                name += &format!("{}:{item}", item.len());
            }
            name
        }
        Value::Undefined(_) => "u".to_string(),
        other => return Err(Fault::new(format!("unhashable type: '{}'", other.kind()))),
    })
}

impl Value {
    /// A text of the template itself.
    pub fn own(text: &str) -> Self {
        Self::Text(Text::own(text))
    }

    /// A list.
    pub fn list(items: Vec<Value>) -> Made<Self> {
        ValueSequence::new(items).map(Self::List)
    }

    /// A tuple.
    pub fn tuple(items: Vec<Value>) -> Made<Self> {
        ValueSequence::new(items).map(Self::Tuple)
    }

    /// A generator of these values.
    pub fn once(items: Vec<Value>) -> Self {
        Self::Once(Rc::new(RefCell::new(items.into())))
    }

    /// An undefined value, and why it is.
    pub fn undefined(reason: impl Into<String>) -> Self {
        Self::Undefined(reason.into().into())
    }

    /// A value of a JSON text, with the origin of its texts.
    pub fn from_json(json: &serde_json::Value, origin: LetterOrigin) -> Made<Self> {
        use serde_json::Value as Json;
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Self::Int(integer.into()),
                (None, Some(integer)) => Self::Int(integer.into()),
                (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(Text::of(text, origin)),
            Json::Array(list) => {
                let items = list.iter().map(|item| Self::from_json(item, origin));
                Self::list(items.collect::<Made<_>>()?)?
            }
            Json::Object(map) => {
                let entry = |(key, value): (&String, &Json)| {
                    // Some templates build a control token around the role, which is a word.
                    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric());
                    let is_role = key == "role" && value.as_str().is_some_and(is_word);
                    let key = Self::Text(Text::of(key, origin));
                    let origin = if is_role {
                        LetterOrigin::TEMPLATE
                    } else {
                        origin
                    };
                    Ok((key, Self::from_json(value, origin)?))
                };
                Self::Dict(Dict::new(map.iter().map(entry).collect::<Made<_>>()?)?)
            }
        })
    }

    fn extent(&self) -> Extent {
        // One level deeper, as for lists: a chain of generators is a chain.
        let of = |values: &mut dyn Iterator<Item = &Value>| {
            let start = Extent {
                depth: 1,
                weight: 1,
                cost: 1,
            };
            values.map(Self::extent).fold(start, Extent::with)
        };
        match self {
            Self::List(list) | Self::Tuple(list) => list.extent,
            Self::Dict(dict) => dict.extent,
            Self::View(view) => of(&mut view.items.iter()),
            Self::Once(items) => of(&mut items.borrow().iter()),
            Self::Loop(state) => of(&mut state.items.iter()),
            Self::Callable(callable) => match &**callable {
                Callable::Joiner(separator, _) => of(&mut std::iter::once(separator)),
                Callable::Cycler(items, _) => of(&mut items.iter()),
            },
            Self::Method(method) => method.0.extent(),
            Self::Namespace(namespace) => Extent {
                depth: namespace.depth.get(),
                weight: 1,
                cost: 1,
            },
            Self::Text(text) => Extent {
                depth: 0,
                weight: 1,
                cost: 1 + text.len() as u64 / 32,
            },
            _ => Extent {
                depth: 0,
                weight: 1,
                cost: 1,
            },
        }
    }

    /// The steps that a comparison with it takes.
    pub fn cost(&self) -> usize {
        usize::try_from(self.extent().cost).unwrap_or(usize::MAX)
    }

    /// Puts a value under a name of a namespace.
    pub fn keep_in(self, namespace: &Namespace, name: &str) -> Made<()> {
        if name.starts_with('_') {
            return Err(Fault::new(format!(
                "a namespace cannot have the attribute '{name}': it begins with an underscore"
            )));
        }
        let depth = extent([&self].into_iter())?.depth;
        namespace.depth.set(namespace.depth.get().max(depth));
        let mut entries = namespace.entries.borrow_mut();
        match entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => *value = self,
            None => entries.push((name.to_string(), self)),
        }
        Ok(())
    }

    /// The name of its type, as Python has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(view) if view.is_range => "range",
            Self::View(_) => "dict view",
            Self::Once(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Loop(_) => "LoopContext",
            Self::Macro(_) => "Macro",
            Self::Method(_) => "builtin_function_or_method",
            Self::Function(_) => "function",
            Self::Callable(_) => "object",
        }
    }

    /// `bool(value)`
    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(float) => *float != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) | Self::Tuple(list) => !list.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::View(view) => !view.items.is_empty(),
            _ => true,
        }
    }

    /// The integer that it is; `True` is 1.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    /// The number that it is.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(float) => Some(*float),
            other => other.as_int().map(|number| number as f64),
        }
    }

    /// `self == other`
    pub fn equals(&self, other: &Self) -> bool {
        let all = |left: &[Value], right: &[Value]| {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| a.equals(b))
        };
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::List(left), Self::List(right)) | (Self::Tuple(left), Self::Tuple(right)) => {
                all(&left.items, &right.items)
            }
            (Self::View(left), Self::View(right)) if left.is_range == right.is_range => {
                all(&left.items, &right.items)
            }
            (Self::Dict(left), Self::Dict(right)) => {
                let has = |(key, value): &(Value, Value)| {
                    right.get(key).is_some_and(|other| value.equals(other))
                };
                left.entries.len() == right.entries.len() && left.entries.iter().all(has)
            }
            _ => match (self.as_int(), other.as_int()) {
                (Some(left), Some(right)) => left == right,
                _ => match (self.as_float(), other.as_float()) {
                    (Some(left), Some(right)) => left == right,
                    _ => self.is_same(other),
                },
            },
        }
    }

    /// `self is other`, as far as that has a meaning here.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Int(left), Self::Int(right)) => left == right,
            (Self::Float(left), Self::Float(right)) => left == right,
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::List(left), Self::List(right)) => Rc::ptr_eq(left, right),
            (Self::Tuple(left), Self::Tuple(right)) => Rc::ptr_eq(left, right),
            (Self::Dict(left), Self::Dict(right)) => Rc::ptr_eq(left, right),
            (Self::Namespace(left), Self::Namespace(right)) => Rc::ptr_eq(left, right),
            (Self::Macro(left), Self::Macro(right)) => Rc::ptr_eq(left, right),
            (Self::Once(left), Self::Once(right)) => Rc::ptr_eq(left, right),
            _ => false,
        }
    }

    /// `len(value)`
    pub fn length(&self) -> Made<usize> {
        Ok(match self {
            Self::Undefined(_) => 0,
            Self::Text(text) => text.len(),
            Self::List(list) | Self::Tuple(list) => list.items.len(),
            Self::Dict(dict) => dict.entries.len(),
            Self::View(view) => view.items.len(),
            Self::Loop(state) => state.length(),
            other => {
                let kind = other.kind();
                return Err(Fault::new(format!("object of type '{kind}' has no len()")));
            }
        })
    }

    /// All that it holds, in its order. A generator is empty afterwards.
    pub fn iterate(&self, budget: &mut Budget) -> Made<Vec<Value>> {
        let count = match self {
            Self::Once(items) => items.borrow().len(),
            Self::Undefined(_) => 0,
            Self::Loop(_) => return Err(Fault::new("'LoopContext' object is not iterable here")),
            other => other
                .length()
                .map_err(|_| Fault::new(format!("'{}' object is not iterable", other.kind())))?,
        };
        let is_text = matches!(self, Self::Text(_));
        budget.make::<Value>(if is_text { 2 * count } else { count })?;
        Ok(match self {
            Self::Text(text) => {
                let letters = text.letters().iter();
                letters
                    .map(|letter| Self::Text([*letter].into_iter().collect()))
                    .collect()
            }
            Self::List(list) | Self::Tuple(list) => list.items.clone(),
            Self::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            Self::View(view) => view.items.clone(),
            Self::Once(items) => items.borrow_mut().drain(..).collect(),
            _ => Vec::new(),
        })
    }
}
