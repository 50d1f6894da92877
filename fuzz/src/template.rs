//! Chat templates. The first byte of an input says which conversation is rendered, the others are
//! the template.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use concord_text::ChatTemplate;
use serde_json::{Map, Value};

use crate::seeds;

/// Templates, conversations and variables: facts of the tests.
const FACTS: &str = include_str!("../../text/tests/text/templates/jinja2.json");

/// What is rendered.
struct Conversation {
    messages: Value,
    tools: Option<Value>,
    variables: Map<String, Value>,
}

/// Small templates and whole ones, and what they are rendered with.
struct Facts {
    templates: Vec<String>,
    conversations: Vec<Conversation>,
}

static ALL: LazyLock<Facts> = LazyLock::new(|| {
    let facts: Value = serde_json::from_str(FACTS).expect("the facts are JSON");
    let list = |name: &str| facts[name].as_array().expect("a list").iter();
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let whole: BTreeMap<String, Value> = object(&facts["sources"]).into_iter().collect();
    let small = list("snippets").map(|snippet| &snippet["template"]);
    let templates = small.chain(whole.values());
    let of_small = Conversation {
        messages: facts["messages"].clone(),
        tools: None,
        variables: object(&facts["variables"]),
    };
    let of_whole = list("conversations").map(|one| Conversation {
        messages: one["messages"].clone(),
        tools: Some(one["tools"].clone()).filter(|tools| !tools.is_null()),
        variables: object(&one["more"]),
    });
    Facts {
        templates: templates
            .map(|one| one.as_str().expect("a text").to_string())
            .collect(),
        conversations: std::iter::once(of_small).chain(of_whole).collect(),
    }
});

/// Writes the first inputs.
pub fn write_seeds() {
    let count = ALL.conversations.len();
    let inputs = ALL.templates.iter().enumerate().map(|(index, template)| {
        // The whole ones are the longest, and are for conversations.
        let which = match template.len() > 300 {
            true => 1 + index % (count - 1),
            false => 0,
        };
        [&[which as u8], template.as_bytes()].concat()
    });
    seeds::write("template", inputs);
}

/// Reads an input: it is refused, or renders the conversation in bounded time and memory, or
/// refuses that.
///
/// # Panics
/// Where the same template renders another text the second time, or an error says nothing.
pub fn read(input: &[u8]) {
    let Some((which, source)) = input.split_first() else {
        return;
    };
    let Ok(source) = std::str::from_utf8(source) else {
        return;
    };
    let one = &ALL.conversations[usize::from(*which) % ALL.conversations.len()];
    let template = match ChatTemplate::from_source(source) {
        Ok(template) => template.with_clock(concord_data::CLOCK),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let has_tools = one.tools.is_some();
    let _ = template.marks_answers(has_tools);
    let _ = template.reads_message_field("content", has_tools);
    let render = || template.render(&one.messages, one.tools.as_ref(), true, &one.variables);
    match (render(), render()) {
        (Ok(first), Ok(second)) => assert_eq!(first.text(), second.text()),
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
        (first, second) => panic!("{first:?} and {second:?}"),
    }
}
