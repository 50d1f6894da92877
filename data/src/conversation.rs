//! A conversation, as a chat template takes it, and which of its turns are learnt.

use serde_json::{Map, Value, json};

use crate::error::{DataError, shown};
use crate::fields;
use crate::instruct::Asked;
use crate::names::{HISTORY, SYSTEM};
use crate::rows::Row;
use crate::source::DatasetSource;

/// Turns in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversation {
    /// Each with `role`, `content` and what else the template reads.
    pub messages: Vec<Map<String, Value>>,
    /// Whether each is learnt; as many as there are messages.
    pub learnt: Vec<bool>,
    /// The tools that the assistant may call.
    pub tools: Option<Value>,
}

impl Conversation {
    /// Adds a message of text.
    pub fn say(&mut self, source: &DatasetSource, role: &str, text: &str) {
        let message = [("role", json!(role)), ("content", json!(text))];
        let message = message.map(|(key, value)| (key.to_string(), value));
        self.add(message.into_iter().collect(), is_trained(source, role));
    }

    /// Adds a message.
    pub fn add(&mut self, message: Map<String, Value>, is_learnt: bool) {
        self.messages.push(message);
        self.learnt.push(is_learnt);
    }

    /// Puts a text in front of all turns.
    ///
    /// # Errors
    /// Where the turns have one already.
    pub fn begin_with(&mut self, source: &DatasetSource, row: &Row) -> Result<(), DataError> {
        let Some(text) = row.text(SYSTEM)?.filter(|text| !text.trim().is_empty()) else {
            return Ok(());
        };
        let begins = |message: &Map<String, Value>| message["role"] == SYSTEM;
        if self.messages.first().is_some_and(begins) {
            return Err(row.fail(format!(
                "there is a field `{SYSTEM}`, and the first turn is one, too; keep one"
            )));
        }
        let mut whole = Self::default();
        whole.say(source, SYSTEM, text);
        whole.messages.append(&mut self.messages);
        whole.learnt.append(&mut self.learnt);
        whole.tools = self.tools.take();
        *self = whole;
        Ok(())
    }

    /// Leaves out what the data set says is not wanted.
    ///
    /// # Errors
    /// Where nothing is learnt of the rest.
    pub fn settle(&mut self, source: &DatasetSource, row: &Row) -> Result<(), DataError> {
        let begins = |message: &Map<String, Value>| message["role"] == SYSTEM;
        if source.drop_system_message && self.messages.first().is_some_and(begins) {
            self.messages.remove(0);
            self.learnt.remove(0);
        }
        if source.mask_history {
            let last = self.learnt.iter().rposition(|is_learnt| *is_learnt);
            for (index, is_learnt) in self.learnt.iter_mut().enumerate() {
                *is_learnt = Some(index) == last;
            }
        }
        match source.train_on_inputs || self.learnt.contains(&true) {
            true => Ok(()),
            false => Err(row.fail(format!(
                "no turn is learnt: there is none of {}; remove the row, or set `roles_to_train`",
                source.roles_to_train.join(", ")
            ))),
        }
    }
}

/// Whether turns of a role are learnt.
pub(crate) fn is_trained(source: &DatasetSource, role: &str) -> bool {
    let canonical = |name: &String| source.roles.get(name).unwrap_or(name) == role;
    source.roles_to_train.iter().any(canonical)
}

/// The conversation of an instruction and an output, with the turns before.
pub(crate) fn of_instruction(source: &DatasetSource, row: &Row) -> Result<Conversation, DataError> {
    let asked = Asked::read(source, row)?;
    let mut conversation = Conversation::default();
    for (index, pair) in row.list(HISTORY)?.unwrap_or_default().iter().enumerate() {
        let texts = pair.as_array().map(Vec::as_slice);
        let Some([Value::String(question), Value::String(answer)]) = texts else {
            return Err(row.fail(format!(
                "`{HISTORY}[{index}]` is {}, not a question and an answer",
                shown(pair)
            )));
        };
        fields::refuse_nul(row, HISTORY, pair)?;
        conversation.say(source, "user", question);
        conversation.say(source, "assistant", answer);
    }
    let (instruction, input) = (asked.instruction, asked.input);
    let question = match (instruction.trim().is_empty(), input.trim().is_empty()) {
        (_, true) => instruction.to_string(),
        (true, false) => input.to_string(),
        (false, false) => format!("{instruction}\n{input}"),
    };
    conversation.say(source, "user", &question);
    conversation.say(source, "assistant", asked.output);
    conversation.begin_with(source, row)?;
    conversation.settle(source, row)?;
    Ok(conversation)
}
