//! Calls out of an answer that comes piece by piece.

use super::CallFormat;
use super::event::{CallEvent, CallEvents};
use super::json::{ValueEnd, ValuePlace};
use super::object::{CallObject, ObjectProgress};
use crate::held::certain;

/// Finds the calls in an answer. What looks like a call and turns out to be none is text again.
/// White space around calls is dropped.
///
/// ```
/// use concord_text::{CallEvent, CallFormat, CallParser};
///
/// let mut parser = CallParser::new(CallFormat::Hermes, vec!["add".to_string()]);
/// let call = r#"<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>"#;
/// let mut events = parser.push(call);
/// events.extend(parser.finish());
/// let arguments = events.iter().find_map(|event| match event {
///     CallEvent::Arguments { piece, .. } => Some(piece.as_str()),
///     CallEvent::Text(_) | CallEvent::Started { .. } => None,
/// });
/// assert_eq!(arguments, Some(r#"{"a": 1}"#));
/// ```
#[derive(Clone, Debug)]
pub struct CallParser {
    format: CallFormat,
    names: Vec<String>,
    state: State,
    /// What has not been looked at, or has to wait for more.
    held: String,
    /// The text of the call that is being read, in case that it is none.
    raw: String,
    /// Calls so far.
    count: u32,
    /// The answer ended within the last call.
    is_cut: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing but white space so far.
    Start,
    Text,
    /// Behind the marker.
    Head,
    /// In an object, of a list or not.
    Object(CallObject, bool),
    /// Before the arguments of `name[ARGS]{..}`.
    Name,
    /// In the arguments of the last call.
    Arguments(ValueEnd),
    /// Behind a call, of a list or not.
    After(bool),
}

/// The longest name of a tool with the marks around it, in bytes.
const NAME_MAX: usize = 512;

impl CallParser {
    /// `names` are those of the tools: where the format has no marker, only their calls are calls.
    pub fn new(format: CallFormat, names: Vec<String>) -> Self {
        Self {
            format,
            names,
            state: State::Start,
            held: String::new(),
            raw: String::new(),
            count: 0,
            is_cut: false,
        }
    }

    /// Whether the answer ended within the last call, so that its arguments are a part only.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many calls have begun.
    pub fn calls(&self) -> u32 {
        self.count
    }

    /// Takes the next piece of the answer.
    pub fn push(&mut self, piece: &str) -> Vec<CallEvent> {
        let mut events = CallEvents::default();
        self.held.push_str(piece);
        while self.step(&mut events) {}
        events.all()
    }

    /// Gives what waits: the answer has ended.
    pub fn finish(&mut self) -> Vec<CallEvent> {
        let mut events = CallEvents::default();
        let held = std::mem::take(&mut self.held);
        let raw = std::mem::take(&mut self.raw);
        match &self.state {
            State::Start | State::Text => events.text(&held),
            State::Head | State::Name => events.text(&(raw + &held)),
            State::Object(object, _) if !object.has_started() => events.text(&raw),
            State::Object(object, _) => self.is_cut = !object.is_between(),
            State::Arguments(_) => self.is_cut = true,
            // Half a marker.
            State::After(_) => {}
        }
        self.state = State::Text;
        events.all()
    }

    /// Looks at what is held; true where there is more to see in it.
    fn step(&mut self, events: &mut CallEvents) -> bool {
        match &mut self.state {
            State::Start => self.start(),
            State::Text => self.text(events),
            State::Head => self.head(events),
            State::Object(..) => self.object(events),
            State::Name => self.name(events),
            State::Arguments(_) => self.arguments(events),
            State::After(in_list) => {
                let in_list = *in_list;
                self.after(in_list)
            }
        }
    }

    fn start(&mut self) -> bool {
        let text = self.held.trim_start();
        if text.is_empty() {
            return false;
        }
        self.state = State::Text;
        if self.format == CallFormat::Llama && text.starts_with('{') {
            self.raw = self.held[..self.held.len() - text.len()].to_string();
            self.held = text.to_string();
            self.begin_object(false, true);
        }
        true
    }

    fn text(&mut self, events: &mut CallEvents) -> bool {
        let opener = self.format.opener();
        if let Some((before, rest)) = self.held.split_once(opener) {
            let text = before.trim_end();
            events.text(text);
            // The space before a marker goes with it: text again where it opens no call.
            self.raw = before[text.len()..].to_string() + opener;
            self.held = rest.to_string();
            self.state = State::Head;
            return true;
        }
        let end = certain(&self.held, opener);
        events.text(&self.held[..end]);
        self.held.drain(..end);
        false
    }

    fn head(&mut self, events: &mut CallEvents) -> bool {
        let is_mistral = matches!(self.format, CallFormat::Mistral | CallFormat::MistralArgs);
        let space = self.held.len() - self.held.trim_start().len();
        self.raw.extend(self.held.drain(..space));
        match self.held.chars().next() {
            None => return false,
            Some('{') => self.begin_object(false, false),
            Some('[') if is_mistral => {
                self.raw.extend(self.held.drain(..1));
                self.begin_object(true, false);
            }
            Some(_) if is_mistral => self.state = State::Name,
            Some(_) => self.give_back(events),
        }
        true
    }

    /// Without a marker, only calls of known tools are calls.
    fn begin_object(&mut self, in_list: bool, unmarked: bool) {
        let names = unmarked.then(|| self.names.clone());
        self.state = State::Object(CallObject::new(self.count, names), in_list);
    }

    fn object(&mut self, events: &mut CallEvents) -> bool {
        let State::Object(object, in_list) = &mut self.state else {
            return false;
        };
        let in_list = *in_list;
        let mut used = 0;
        let mut progress = ObjectProgress::More;
        for character in self.held.chars() {
            let had_started = object.has_started();
            progress = object.push(character, events);
            if object.has_started() && !had_started {
                self.count += 1;
            }
            if progress == ObjectProgress::Broken {
                break;
            }
            used += character.len_utf8();
            if progress == ObjectProgress::Done {
                break;
            }
        }
        let has_started = object.has_started();
        self.raw.extend(self.held.drain(..used));
        match progress {
            ObjectProgress::More => return false,
            ObjectProgress::Broken if !has_started => self.give_back(events),
            ObjectProgress::Broken => self.state = State::Text,
            ObjectProgress::Done => self.state = State::After(in_list),
        }
        true
    }

    fn name(&mut self, events: &mut CallEvents) -> bool {
        let Some(start) = self.held.find('{') else {
            let too_long = self.held.len() > NAME_MAX;
            if too_long {
                self.give_back(events);
            }
            return too_long;
        };
        let name = self.held[..start].split('[').next().unwrap_or_default();
        let name = name.trim().to_string();
        if name.is_empty() {
            self.give_back(events);
            return true;
        }
        self.held.drain(..start);
        events.push(CallEvent::Started {
            index: self.count,
            name,
        });
        self.count += 1;
        self.state = State::Arguments(ValueEnd::default());
        true
    }

    fn arguments(&mut self, events: &mut CallEvents) -> bool {
        let State::Arguments(end) = &mut self.state else {
            return false;
        };
        let mut used = 0;
        let mut is_last = false;
        for character in self.held.chars() {
            used += character.len_utf8();
            is_last = end.push(character) == ValuePlace::Last;
            if is_last {
                break;
            }
        }
        let piece: String = self.held.drain(..used).collect();
        if !piece.is_empty() {
            events.push(CallEvent::Arguments {
                index: self.count - 1,
                piece,
            });
        }
        if is_last {
            self.state = State::After(false);
        }
        is_last
    }

    fn after(&mut self, in_list: bool) -> bool {
        self.raw.clear();
        let text = self.held.trim_start();
        let rest = |skip: usize| text[skip..].to_string();
        let (state, held) = match text.chars().next() {
            None => {
                self.held.clear();
                return false;
            }
            Some(',') if in_list => (
                State::Object(CallObject::new(self.count, None), true),
                rest(1),
            ),
            Some(']') if in_list => (State::After(false), rest(1)),
            Some(';') if self.format == CallFormat::Llama => (State::After(false), rest(1)),
            Some('{') if self.format == CallFormat::Llama => (State::Start, rest(0)),
            Some(_) => {
                let closer = "</tool_call>";
                let is_hermes = self.format == CallFormat::Hermes;
                if is_hermes && text.starts_with(closer) {
                    (State::After(false), rest(closer.len()))
                } else if is_hermes && closer.starts_with(text) {
                    return false;
                } else {
                    (State::Text, rest(0))
                }
            }
        };
        self.held = held;
        self.state = state;
        true
    }

    /// It was no call: what was read of it is text.
    fn give_back(&mut self, events: &mut CallEvents) {
        events.text(&std::mem::take(&mut self.raw));
        // What follows may hold a marker still.
        self.state = State::Text;
    }
}
