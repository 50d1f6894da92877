//! Lists of messages: what a row calls them becomes what a chat template calls them.

use concord_text::ChatTemplate;
use serde_json::{Map, Value, json};

use crate::conversation::{Conversation, is_trained};
use crate::error::{DataError, shown};
use crate::fields;
use crate::names::TOOLS;
use crate::rows::Row;
use crate::source::{DatasetKind, DatasetSource};

/// A field of messages that ties the answer of a tool to its call: the order does that, too.
const TIES: &str = "tool_call_id";

/// Parts of a content, and fields of messages, that hold no text.
const MEDIA: [&str; 8] = [
    "image",
    "images",
    "image_url",
    "audio",
    "audios",
    "input_audio",
    "video",
    "videos",
];

/// The role of a turn in which the assistant calls tools, as JSON in its text.
const CALL: &str = "function_call";

/// Reads the messages of one row.
struct Reader<'a> {
    source: &'a DatasetSource,
    template: &'a ChatTemplate,
    row: &'a Row<'a>,
    has_tools: bool,
}

/// The conversation of a row's list of messages.
pub(crate) fn conversation(
    source: &DatasetSource,
    template: &ChatTemplate,
    row: &Row,
) -> Result<Conversation, DataError> {
    let key = &source.field_messages;
    let list = row.list(key)?;
    let list = list.ok_or_else(|| fields::missing(source, row, key))?;
    fields::check(source, row)?;
    let mut conversation = Conversation {
        tools: tools(template, row)?,
        ..Conversation::default()
    };
    let reader = Reader {
        source,
        template,
        row,
        has_tools: conversation.tools.is_some(),
    };
    reader.read(key, &list, true, &mut conversation)?;
    if source.kind == DatasetKind::ShareGpt {
        conversation.begin_with(source, row)?;
    }
    conversation.settle(source, row)?;
    Ok(conversation)
}

/// The conversation of a prompt and a completion that are lists of turns; the prompt is given.
pub(crate) fn of_two_lists(
    source: &DatasetSource,
    template: &ChatTemplate,
    row: &Row,
) -> Result<Conversation, DataError> {
    let mut conversation = Conversation {
        tools: tools(template, row)?,
        ..Conversation::default()
    };
    let reader = Reader {
        source,
        template,
        row,
        has_tools: conversation.tools.is_some(),
    };
    for (key, is_learnt) in [
        (&source.field_instruction, false),
        (&source.field_output, true),
    ] {
        let list = row.list(key)?;
        let list = list.ok_or_else(|| fields::missing(source, row, key))?;
        reader.read(key, &list, is_learnt, &mut conversation)?;
    }
    fields::check(source, row)?;
    conversation.settle(source, row)?;
    Ok(conversation)
}

/// The tools of a row.
fn tools(template: &ChatTemplate, row: &Row) -> Result<Option<Value>, DataError> {
    let list = row.list(TOOLS)?.filter(|list| !list.is_empty());
    let Some(list) = list else {
        return Ok(None);
    };
    if let Some((index, tool)) = list.iter().enumerate().find(|(_, tool)| !tool.is_object()) {
        return Err(row.fail(format!(
            "`{TOOLS}[{index}]` is {}, not the description of a function",
            shown(tool)
        )));
    }
    let tools = Value::Array(list);
    fields::refuse_nul(row, TOOLS, &tools)?;
    match template.reads_variable(TOOLS, true) {
        true => Ok(Some(tools)),
        false => Err(row.fail(format!(
            "the chat template never reads `{TOOLS}`: take one that does, or name the field in \
             `ignore_fields`"
        ))),
    }
}

impl Reader<'_> {
    fn read(
        &self,
        key: &str,
        list: &[Value],
        may_be_learnt: bool,
        conversation: &mut Conversation,
    ) -> Result<(), DataError> {
        if list.is_empty() {
            return Err(self.row.fail(format!("the field `{key}` has no message")));
        }
        for (index, message) in list.iter().enumerate() {
            let place = format!("{key}[{index}]");
            let (message, is_learnt) = self.message(&place, message)?;
            let is_learnt = is_learnt && may_be_learnt;
            if is_learnt && !says_something(&message) {
                return Err(self.row.fail(format!(
                    "{place} is empty, so there is nothing to learn; remove the row"
                )));
            }
            conversation.add(message, is_learnt);
        }
        Ok(())
    }

    /// A message as the template takes it, and whether it is learnt.
    fn message(
        &self,
        place: &str,
        message: &Value,
    ) -> Result<(Map<String, Value>, bool), DataError> {
        let (source, row) = (self.source, self.row);
        let names = (source.property("role"), source.property("content"));
        let Value::Object(given) = message else {
            return Err(row.fail(format!(
                "{place} is {}, not a message such as {{\"{}\": \"user\", \"{}\": \"...\"}}",
                shown(message),
                names.0,
                names.1
            )));
        };
        fields::refuse_nul(row, place, message)?;
        let role = self.role(place, given)?;
        let content = self.content(place, given)?;
        let mut made = Map::new();
        let is_call = role == CALL;
        let role = if is_call { "assistant" } else { role };
        made.insert("role".to_string(), json!(role));
        match is_call {
            true => {
                made.insert("content".to_string(), json!(""));
                made.insert("tool_calls".to_string(), self.calls(place, &content)?);
            }
            false => {
                made.insert("content".to_string(), json!(content));
            }
        }
        let mut is_learnt = is_trained(source, role);
        for (key, value) in given {
            if source.field_training.as_ref() == Some(key) {
                is_learnt = self.flag(place, key, value)?.unwrap_or(is_learnt);
                continue;
            }
            let is_read = [names.0, names.1].contains(&key.as_str());
            let is_ignored = source.ignore_fields.contains(key) || key == TIES;
            let is_left_out = is_ignored && !self.reads(key);
            if !is_read && !is_left_out && !fields::says_nothing(value) {
                let property = self.property_of(key);
                self.check_property(place, key, property)?;
                if made.contains_key(property) {
                    return Err(self.row.fail(format!(
                        "{place} has the field `{key}`, but its `{property}` is read from another \
                         field; name `{key}` in `ignore_fields`, or set `message_property_mappings`"
                    )));
                }
                made.insert(property.to_string(), value.clone());
            }
        }
        Ok((made, is_learnt))
    }

    fn reads(&self, field: &str) -> bool {
        self.template.reads_message_field(field, self.has_tools)
    }

    /// The name that the template has for a field of messages.
    fn property_of<'a>(&'a self, key: &'a str) -> &'a str {
        let mut named = self.source.message_properties.iter();
        let found = named.find(|(_, from)| *from == key);
        found.map_or(key, |(property, _)| property)
    }

    /// Refuses a field of messages that the template leaves out.
    fn check_property(&self, place: &str, key: &str, property: &str) -> Result<(), DataError> {
        if MEDIA.contains(&property) {
            return Err(self.row.fail(format!(
                "{place} has the field `{key}`: only text is trained on; remove the row"
            )));
        }
        if self.reads(property) {
            return Ok(());
        }
        Err(self.row.fail(format!(
            "{place} has the field `{key}`, which the chat template never reads: name it in \
             `ignore_fields`, as `message_field_training` if it says whether the turn is learnt, \
             or remove it"
        )))
    }

    /// The role of a message, by the name that templates have for it.
    fn role<'a>(
        &'a self,
        place: &str,
        given: &'a Map<String, Value>,
    ) -> Result<&'a str, DataError> {
        let key = self.source.property("role");
        let role = match given.get(key) {
            Some(Value::String(role)) => role,
            Some(other) => {
                return Err(self.row.fail(format!(
                    "the field `{key}` of {place} is {}, not a string",
                    shown(other)
                )));
            }
            None => return Err(self.lacks(place, given, key)),
        };
        let known = self.source.roles.get(role);
        known.map(String::as_str).ok_or_else(|| {
            self.row.fail(format!(
                "the role of {place} is {role:?}, which is not known; set `roles` to say which it \
                 is, such as `roles: {{user: [{role}]}}`"
            ))
        })
    }

    fn lacks(&self, place: &str, given: &Map<String, Value>, key: &str) -> DataError {
        let keys: Vec<&str> = given.keys().map(String::as_str).take(16).collect();
        let hint = match (given.contains_key("from"), given.contains_key("role")) {
            (true, _) => {
                "; set `type: sharegpt`, or `message_property_mappings: {role: from, \
                          content: value}`"
            }
            (_, true) => "; set `type: chat_template`",
            _ => "; set `message_property_mappings`",
        };
        self.row.fail(format!(
            "there is no field `{key}` in {place}; there are {}{hint}",
            keys.join(", ")
        ))
    }

    /// The text of a message. One that is a list of parts is their texts, one behind the other.
    fn content(&self, place: &str, given: &Map<String, Value>) -> Result<String, DataError> {
        let key = self.source.property("content");
        let wrong = |value: &Value| {
            self.row.fail(format!(
                "the field `{key}` of {place} is {}, not a string",
                shown(value)
            ))
        };
        let parts = match given.get(key) {
            Some(Value::String(text)) => return Ok(text.clone()),
            Some(Value::Null) => return Ok(String::new()),
            None if given.contains_key("tool_calls") => return Ok(String::new()),
            None => return Err(self.lacks(place, given, key)),
            Some(Value::Array(parts)) => parts,
            Some(other) => return Err(wrong(other)),
        };
        let mut whole = String::new();
        for part in parts {
            match (part["type"].as_str(), part["text"].as_str(), part) {
                (_, _, Value::String(text)) => whole += text,
                (Some("text") | None, Some(text), _) => whole += text,
                (Some(kind), _, _) if MEDIA.contains(&kind) => {
                    return Err(self.row.fail(format!(
                        "the field `{key}` of {place} has a part of type {kind}: only text is \
                         trained on; remove the row"
                    )));
                }
                _ => return Err(wrong(part)),
            }
        }
        Ok(whole)
    }

    /// The calls that a turn of the role `function_call` has as JSON.
    fn calls(&self, place: &str, text: &str) -> Result<Value, DataError> {
        let wrong = || {
            self.row.fail(format!(
                "{place} is {}, not a call such as {{\"name\": \"f\", \"arguments\": {{}}}}",
                shown(text)
            ))
        };
        let parsed: Value = serde_json::from_str(text).map_err(|_| wrong())?;
        let list = match parsed {
            Value::Array(list) => list,
            one => vec![one],
        };
        let call = |call: &Value| {
            let is_whole = call["name"].is_string() && call.get("arguments").is_some();
            let is_more = call.as_object().is_some_and(|call| call.len() > 2);
            match is_whole && !is_more {
                true => Ok(json!({ "type": "function", "function": call })),
                false => Err(wrong()),
            }
        };
        let calls = list
            .iter()
            .map(call)
            .collect::<Result<Vec<Value>, DataError>>()?;
        self.check_property(place, "tool_calls", "tool_calls")?;
        Ok(Value::Array(calls))
    }

    /// A field that says whether a message is learnt.
    fn flag(&self, place: &str, key: &str, value: &Value) -> Result<Option<bool>, DataError> {
        match (value, value.as_f64()) {
            (Value::Null, _) => Ok(None),
            (Value::Bool(flag), _) => Ok(Some(*flag)),
            (_, Some(0.0)) => Ok(Some(false)),
            (_, Some(1.0)) => Ok(Some(true)),
            _ => Err(self.row.fail(format!(
                "the field `{key}` of {place} is {}, not true or false, 1 or 0",
                shown(value)
            ))),
        }
    }
}

/// Whether an assistant's message has a text or a call.
fn says_something(message: &Map<String, Value>) -> bool {
    let is_text = |key: &str| {
        let text = message.get(key).and_then(Value::as_str);
        text.is_some_and(|text| !text.trim().is_empty())
    };
    let has_calls = message
        .get("tool_calls")
        .is_some_and(|calls| !fields::says_nothing(calls));
    has_calls || is_text("content")
}
