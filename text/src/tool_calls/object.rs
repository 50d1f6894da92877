//! One call as a JSON object: `{"name": .., "arguments": {..}}`.

use super::event::{CallEvent, CallEvents};
use super::json::{ValueEnd, ValuePlace};

/// Keys of a call beside its name, as various models write them.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];
const OTHERS: [&str; 3] = ["id", "type", "function"];

/// Reads a call while it is written.
#[derive(Clone, Debug)]
pub struct CallObject {
    index: u32,
    /// The names of tools that make an object a call; `None` accepts any name.
    names: Option<Vec<String>>,
    at: At,
    key: String,
    /// Whether the value is a string, by its first character.
    is_string: bool,
    /// The tool, once it is known.
    name: Option<String>,
    has_started: bool,
    /// Arguments that cannot be given out yet: the name is not known, or they are a JSON string
    /// that has to be read first.
    waiting: String,
}

#[derive(Clone, Debug)]
enum At {
    Open,
    Key(ValueEnd, String),
    Colon,
    Value(ValueEnd, String),
    Next,
}

/// What has become of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectProgress {
    /// It goes on.
    More,
    /// It is complete.
    Done,
    /// It is no call.
    Broken,
}

impl CallObject {
    /// The call `index` of an answer. With `names`, only calls of these.
    pub fn new(index: u32, names: Option<Vec<String>>) -> Self {
        Self {
            index,
            names,
            at: At::Open,
            key: String::new(),
            is_string: false,
            name: None,
            has_started: false,
            waiting: String::new(),
        }
    }

    /// Whether the start of the call has been given out. It waits for the first of the arguments: a
    /// call that is cut off before them is text.
    pub fn has_started(&self) -> bool {
        self.has_started
    }

    /// Whether a value has ended, and no other one has begun.
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::Next)
    }

    /// Takes the next character.
    pub fn push(&mut self, character: char, events: &mut CallEvents) -> ObjectProgress {
        let is_space = character.is_whitespace();
        match &mut self.at {
            At::Open | At::Colon | At::Next if is_space => ObjectProgress::More,
            At::Open if character == '{' => self.go_on(At::Key(ValueEnd::default(), String::new())),
            At::Colon if character == ':' => {
                self.go_on(At::Value(ValueEnd::default(), String::new()))
            }
            At::Next if character == ',' => self.go_on(At::Key(ValueEnd::default(), String::new())),
            At::Next if character == '}' => self.end(events),
            At::Open | At::Colon | At::Next => ObjectProgress::Broken,
            At::Key(end, text) => {
                let place = end.push(character);
                match place {
                    ValuePlace::Before => ObjectProgress::More,
                    ValuePlace::Behind if character == '}' => self.end(events),
                    ValuePlace::Behind => ObjectProgress::Broken,
                    ValuePlace::Inside if text.is_empty() && character != '"' => {
                        ObjectProgress::Broken
                    }
                    ValuePlace::Inside | ValuePlace::Last => {
                        text.push(character);
                        let is_last = place == ValuePlace::Last;
                        let text = is_last.then(|| std::mem::take(text));
                        text.map_or(ObjectProgress::More, |text| self.named_key(&text))
                    }
                }
            }
            At::Value(end, text) => {
                if !end.has_begun() {
                    self.is_string = character == '"';
                }
                let place = end.push(character);
                if matches!(place, ValuePlace::Inside | ValuePlace::Last) {
                    text.push(character);
                }
                self.value(place, character, events)
            }
        }
    }

    fn go_on(&mut self, at: At) -> ObjectProgress {
        self.at = at;
        ObjectProgress::More
    }

    fn named_key(&mut self, text: &str) -> ObjectProgress {
        let Ok(key) = serde_json::from_str::<String>(text) else {
            return ObjectProgress::Broken;
        };
        let is_known = key == "name" || [&ARGUMENTS[..], &OTHERS].concat().contains(&key.as_str());
        // Without a marker in front, an object with other keys is text and need not wait.
        if self.names.is_some() && !is_known {
            return ObjectProgress::Broken;
        }
        self.key = key;
        self.go_on(At::Colon)
    }

    /// Goes on within a value, whose text so far stands in `at`.
    fn value(
        &mut self,
        place: ValuePlace,
        character: char,
        events: &mut CallEvents,
    ) -> ObjectProgress {
        let At::Value(_, text) = &mut self.at else {
            return ObjectProgress::Broken;
        };
        let is_arguments = ARGUMENTS.contains(&self.key.as_str());
        let ends = matches!(place, ValuePlace::Last | ValuePlace::Behind);
        if is_arguments && !self.is_string {
            // What a model writes is given out as it comes.
            self.waiting.push_str(&std::mem::take(text));
            self.give_arguments(events);
        }
        if !ends {
            return ObjectProgress::More;
        }
        let At::Value(_, text) = std::mem::replace(&mut self.at, At::Next) else {
            return ObjectProgress::Broken;
        };
        if self.key == "name" && !self.start(&text, events) {
            return ObjectProgress::Broken;
        }
        if is_arguments && self.is_string {
            // Arguments as a string with JSON in it.
            self.waiting = serde_json::from_str(&text).unwrap_or(text);
            self.give_arguments(events);
        }
        match place {
            ValuePlace::Behind => self.push(character, events),
            _ => ObjectProgress::More,
        }
    }

    fn start(&mut self, text: &str, events: &mut CallEvents) -> bool {
        let Ok(name) = serde_json::from_str::<String>(text) else {
            return false;
        };
        let is_other = |names: &Vec<String>| !names.contains(&name);
        if self.name.is_some() || self.names.as_ref().is_some_and(is_other) {
            return false;
        }
        self.name = Some(name);
        self.give_arguments(events);
        true
    }

    fn give_arguments(&mut self, events: &mut CallEvents) {
        let (Some(name), false) = (&self.name, self.waiting.is_empty()) else {
            return;
        };
        if !self.has_started {
            self.has_started = true;
            events.push(CallEvent::Started {
                index: self.index,
                name: name.clone(),
            });
        }
        events.push(CallEvent::Arguments {
            index: self.index,
            piece: std::mem::take(&mut self.waiting),
        });
    }

    fn end(&mut self, events: &mut CallEvents) -> ObjectProgress {
        if self.name.is_none() {
            return ObjectProgress::Broken;
        }
        if !self.has_started {
            self.waiting = "{}".to_string();
            self.give_arguments(events);
        }
        ObjectProgress::Done
    }
}
