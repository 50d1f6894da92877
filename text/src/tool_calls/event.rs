//! The events of a parser of calls.

/// A part of an answer; parts come in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEvent {
    /// Text that is part of no call.
    Text(String),
    /// A call begins.
    Started {
        /// The call, from 0.
        index: u32,
        /// The name of the tool.
        name: String,
    },
    /// The next piece of the JSON text of a call's arguments, as the model wrote it.
    Arguments {
        /// The call.
        index: u32,
        /// The piece.
        piece: String,
    },
}

/// Events, in which neighbours of one kind are merged.
#[derive(Debug, Default)]
pub struct CallEvents(Vec<CallEvent>);

impl CallEvents {
    /// Adds an event, or adds its text to the last one.
    pub fn push(&mut self, event: CallEvent) {
        match (self.0.last_mut(), event) {
            (Some(CallEvent::Text(before)), CallEvent::Text(text)) => before.push_str(&text),
            (
                Some(CallEvent::Arguments { index, piece }),
                CallEvent::Arguments {
                    index: at,
                    piece: next,
                },
            ) if *index == at => piece.push_str(&next),
            (_, event) => self.0.push(event),
        }
    }

    /// Adds text that is part of no call.
    pub fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(CallEvent::Text(text.to_string()));
        }
    }

    /// All that came, in its order.
    pub fn all(self) -> Vec<CallEvent> {
        self.0
    }
}
