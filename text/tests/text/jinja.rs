//! Templates as Jinja2 in transformers renders them: facts in `templates/jinja2.json`, which
//! `templates/make_fixtures.py` writes.

use std::collections::BTreeMap;
use std::fs;

use concord_text::ChatTemplate;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::fixtures::says;

const FACTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/text/templates/jinja2.json"
);

#[derive(Deserialize)]
struct Facts {
    variables: Map<String, Value>,
    messages: Value,
    snippets: Vec<Snippet>,
    /// Whole templates by their names.
    sources: BTreeMap<String, String>,
    conversations: Vec<Conversation>,
    families: Vec<Rendered>,
}

/// A small template, and what transformers made of it.
#[derive(Deserialize)]
struct Snippet {
    name: String,
    template: String,
    text: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Value,
    tools: Option<Value>,
    more: Map<String, Value>,
    add_generation_prompt: bool,
}

/// What transformers made of a conversation by a whole template.
#[derive(Deserialize)]
struct Rendered {
    name: String,
    family: String,
    conversation: usize,
    text: Option<String>,
    error: Option<String>,
}

fn facts() -> Facts {
    serde_json::from_slice(&fs::read(FACTS).unwrap()).unwrap()
}

/// What differs from the fact, in words.
fn difference(
    name: &str,
    made: Result<String, String>,
    text: Option<&str>,
    error: Option<&str>,
) -> Option<String> {
    match (made, text, error) {
        (Ok(made), Some(text), _) if made == text => None,
        (Ok(made), Some(text), _) => Some(format!("{name}:\n  {made:?}\n  not {text:?}")),
        (Ok(made), None, _) => Some(format!("{name}: an error is missing, but {made:?}")),
        (Err(reason), None, Some(error)) if reason.contains(error) => None,
        (Err(reason), ..) => Some(format!("{name}: {reason}")),
    }
}

fn assert_none(differences: &[String]) {
    let count = differences.len();
    assert!(count == 0, "{count} differ:\n{}", differences.join("\n"));
}

#[test]
fn small_templates() {
    let facts = facts();
    assert!(facts.snippets.len() >= 200);
    let mut differences = Vec::new();
    for snippet in &facts.snippets {
        let template = ChatTemplate::from_source(&snippet.template);
        let made = template
            .and_then(|template| template.render(&facts.messages, None, false, &facts.variables));
        let made = made.map(|chat| chat.text().to_string());
        let name = format!("{} {:?}", snippet.name, snippet.template);
        let (text, error) = (snippet.text.as_deref(), snippet.error.as_deref());
        let made = made.map_err(|error| error.to_string());
        differences.extend(difference(&name, made, text, error));
    }
    assert_none(&differences);
}

#[test]
fn whole_templates() {
    let facts = facts();
    assert!(facts.sources.len() >= 14);
    assert!(facts.families.len() == facts.sources.len() * facts.conversations.len());
    let mut differences = Vec::new();
    for fact in &facts.families {
        let template = ChatTemplate::from_source(&facts.sources[&fact.family]).unwrap();
        let conversation = &facts.conversations[fact.conversation];
        let mut more = conversation.more.clone();
        more.insert("bos_token".to_string(), json!("<s>"));
        more.insert("eos_token".to_string(), json!("</s>"));
        let made = template.render(
            &conversation.messages,
            conversation.tools.as_ref(),
            conversation.add_generation_prompt,
            &more,
        );
        let made = made.map(|chat| chat.text().to_string());
        let made = made.map_err(|error| error.to_string());
        let (text, error) = (fact.text.as_deref(), fact.error.as_deref());
        differences.extend(difference(&fact.name, made, text, error));
    }
    assert_none(&differences);
}

/// What cannot be as in Python is named.
#[test]
fn what_is_refused_is_named() {
    let cases = [
        ("{{ 'a' | wordwrap(3) }}", "wordwrap"),
        ("{{ [1] | random }}", "random"),
        ("{{ 'a' | pprint }}", "pprint"),
        ("{{ '<b>' | striptags }}", "striptags"),
        ("{{ 'a' | urlize }}", "urlize"),
        ("{{ 1 | filesizeformat }}", "filesizeformat"),
        ("{{ 2 ** 0.5 }}", "powers"),
        ("{{ 2 ** 200 }}", "128 bits"),
        ("{{ [1] | map('string') }}", "generator"),
        ("{{ range }}", "function"),
        ("{{ '{:{}}'.format(1, 2) }}", "fields within fields"),
        ("{{ '{!a}'.format(1) }}", "!a"),
        ("{{ 5.5 | round(-1) }}", "before the point"),
    ];
    for (source, name) in cases {
        let template = ChatTemplate::from_source(source).unwrap();
        let error = template.render(&json!([]), None, false, &Map::new());
        says(error.unwrap_err(), &[name, "line 1"]);
    }
    for tag in [
        "block x",
        "extends 'x'",
        "include 'x'",
        "import 'x' as y",
        "autoescape true",
    ] {
        let name = tag.split(' ').next().unwrap();
        let error = ChatTemplate::from_source(&format!("a\n{{% {tag} %}}")).unwrap_err();
        says(error, &[name, "not supported", "line 2"]);
    }
}

/// The date is the one thing that a template does not take from what it is given.
#[test]
fn the_date_of_today() {
    let template = ChatTemplate::from_source("{{ strftime_now('%e|%D|%U') }}").unwrap();
    let chat = template
        .render(&json!([]), None, false, &Map::new())
        .unwrap();
    let parts: Vec<&str> = chat.text().split('|').collect();
    assert_eq!(
        parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
        [2, 8, 2]
    );
}
