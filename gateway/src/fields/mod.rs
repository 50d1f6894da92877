//! The fields that requests may have: what each accepts, its bounds, and what it does.
//!
//! Requests are read by these tables ([`crate::json::Fields`]), and `docs/api.md` is made from
//! them. A field that is in none of them is unknown.

mod chat;
mod completion;
mod more;
mod sampling;

use crate::options::Limits;

pub(crate) use chat::{CHAT, CHOICE, PART};
pub(crate) use completion::COMPLETION;
pub(crate) use more::{DETOKENIZE, EMBEDDINGS, LOAD_ADAPTER, TOKENIZE, UNLOAD_ADAPTER};

/// A field of an object in a request.
#[derive(Debug)]
pub(crate) struct Field {
    pub name: &'static str,
    pub takes: Accepts,
    pub effect: Effects,
    /// What it means, as a sentence.
    pub about: &'static str,
}

/// What a field accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Accepts {
    Text,
    Flag,
    /// A number from the first to the second.
    Number(f64, f64),
    /// An integer from the first to the second.
    Integer(i64, i64),
    /// An integer from 1 to a limit of the gateway.
    Count(fn(&Limits) -> u32),
    /// A list of at most so many items, each an object with these fields, or as the text says.
    List(usize, Items),
    /// An object with these fields.
    Object(Table),
    /// An object with any fields.
    Map,
    /// What the text says.
    Other(&'static str),
    /// Only this JSON value, which means the same as leaving the field out; `null` for a field
    /// that is always refused.
    Only(&'static str),
    /// Nothing; the text says what to use instead.
    Never(&'static str),
}

/// The items of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Items {
    Objects(Table),
    Other(&'static str),
}

/// Whether a field changes answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effects {
    /// It changes answers, or says what is asked for.
    Some,
    /// It changes nothing; only its type is checked.
    None,
}

/// Fields of an object. Objects share some of the lists.
pub(crate) type Table = &'static [&'static [Field]];

/// The field of this name.
pub(crate) fn find(table: Table, name: &str) -> Option<&'static Field> {
    let all = table.iter().flat_map(|fields| fields.iter());
    all.into_iter().find(|field| field.name == name)
}

/// A field that changes answers, or says what is asked for.
const fn used(name: &'static str, takes: Accepts, about: &'static str) -> Field {
    Field {
        name,
        takes,
        effect: Effects::Some,
        about,
    }
}

/// A field that changes no answer.
const fn unused(name: &'static str, takes: Accepts, about: &'static str) -> Field {
    Field {
        name,
        takes,
        effect: Effects::None,
        about,
    }
}

/// A field of other servers that is not supported, except with the value that changes nothing.
const fn only(name: &'static str, value: &'static str) -> Field {
    Field {
        name,
        takes: Accepts::Only(value),
        effect: Effects::None,
        about: "",
    }
}

/// A field of other servers that is refused; `instead` says what to use.
const fn never(name: &'static str, instead: &'static str) -> Field {
    Field {
        name,
        takes: Accepts::Never(instead),
        effect: Effects::None,
        about: "",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn check(table: Table) {
        let mut names = BTreeSet::new();
        for field in table.iter().flat_map(|fields| fields.iter()) {
            assert!(names.insert(field.name), "{} stands twice", field.name);
            match field.takes {
                Accepts::Only(value) => {
                    let read: Result<Value, _> = serde_json::from_str(value);
                    assert!(read.is_ok(), "{}: {value}", field.name);
                }
                Accepts::Object(table) | Accepts::List(_, Items::Objects(table)) => check(table),
                Accepts::Number(least, most) => assert!(least < most, "{}", field.name),
                Accepts::Integer(least, most) => assert!(least < most, "{}", field.name),
                Accepts::Text
                | Accepts::Flag
                | Accepts::Count(_)
                | Accepts::List(_, Items::Other(_))
                | Accepts::Map
                | Accepts::Other(_)
                | Accepts::Never(_) => {}
            }
            let needs_words = !matches!(field.takes, Accepts::Only(_) | Accepts::Never(_));
            assert_eq!(needs_words, field.about.ends_with('.'), "{}", field.name);
        }
    }

    #[test]
    fn each_field_stands_once_and_says_what_it_is() {
        for table in [
            CHAT,
            COMPLETION,
            TOKENIZE,
            DETOKENIZE,
            EMBEDDINGS,
            LOAD_ADAPTER,
            UNLOAD_ADAPTER,
        ] {
            check(table);
        }
    }
}
