//! Axolotl's data sets.

use serde_yaml_ng::Value;

use crate::builder::{JobBuilder, names};
use crate::dataset::{Dataset, Learnt, RowKind, TooLong, TurnTemplate};
use crate::shown::shown;

/// What to do where rows cannot be read.
const TYPES: &str = "types are alpaca, chat_template, completion and pretrain: write the rows as \
                     turns of role and content, and set chat_template";

pub fn read(b: &mut JobBuilder) {
    let too_long = too_long(b);
    let all = b.flag("train_on_inputs") == Some(true);
    let template = template(b, "chat_template", "chat_template_jinja");
    for at in entries(b, "datasets") {
        entry(b, &at, all, template.clone(), too_long);
    }
    for at in entries(b, "pretraining_dataset") {
        pretraining(b, &at);
    }
    if b.out.datasets.is_empty() && b.out.problems.is_empty() {
        b.missing("datasets", "name at least one data set");
    }
    if b.has("pretraining_dataset") && !b.has("max_steps") {
        b.missing("max_steps", "a stream has no epochs: set the steps");
    }
}

/// The paths of the entries of a list.
fn entries(b: &mut JobBuilder, key: &str) -> Vec<String> {
    match b.value(key) {
        Some(Value::Sequence(items)) => (0..items.len()).map(|i| format!("{key}[{i}]")).collect(),
        Some(value) => {
            let what = format!("is {}, but must be a list of data sets", shown(value));
            b.problem(key, what, "", None);
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn too_long(b: &mut JobBuilder) -> TooLong {
    match b.word("excess_length_strategy").as_deref() {
        None | Some("drop") => TooLong::Drop,
        Some("truncate") => TooLong::Truncate,
        Some("raise") => TooLong::Refuse,
        Some(_) => {
            b.refuse(
                "excess_length_strategy",
                "it is drop, truncate or raise",
                Some("drop"),
            );
            TooLong::Drop
        }
    }
}

/// The template of conversations.
fn template(b: &mut JobBuilder, name: &str, jinja: &str) -> TurnTemplate {
    if let Some(text) = b.text(jinja) {
        b.read.insert(name.to_string());
        return TurnTemplate::Jinja(text);
    }
    match b.word(name).as_deref() {
        None | Some("tokenizer_default") => {}
        Some(word) if word.starts_with("tokenizer_default_fallback_") => {}
        Some(_) => {
            let remedy = "Axolotl's own templates are not known; the tokenizer's, which for most \
                          models is the same, is tokenizer_default";
            b.refuse(name, remedy, Some("tokenizer_default"));
        }
    }
    TurnTemplate::Tokenizer
}

fn entry(b: &mut JobBuilder, at: &str, all: bool, template: TurnTemplate, too_long: TooLong) {
    let key = |name: &str| format!("{at}.{name}");
    let Some(path) = field(b, &key("path")) else {
        return b.missing(&key("path"), "name a file");
    };
    let kind = match at_value(b, &key("type")) {
        Some(Value::String(word)) => match kind(&word) {
            Some(kind) => kind,
            None => return at_refuse(b, &key("type"), &format!("\"{word}\""), TYPES),
        },
        Some(other) => return at_refuse(b, &key("type"), &shown(&other), TYPES),
        None => return b.missing(&key("type"), TYPES),
    };
    let mut dataset = Dataset::new(at, b.doc.place(at), path, kind);
    let all = all || at_value(b, &key("train_on_inputs")) == Some(Value::Bool(true));
    dataset.learnt = match kind {
        RowKind::Completion | RowKind::Text => Learnt::All,
        _ if all => Learnt::All,
        _ => Learnt::Answers,
    };
    dataset.too_long = match kind {
        RowKind::Completion => TooLong::Split,
        _ => too_long,
    };
    dataset.template = template;
    columns(b, at, &mut dataset);
    turns(b, at, &mut dataset);
    b.dataset(dataset);
}

fn kind(word: &str) -> Option<RowKind> {
    match word {
        "alpaca" => Some(RowKind::Alpaca),
        "chat_template" | "chat_template.default" => Some(RowKind::Chat),
        "completion" => Some(RowKind::Completion),
        "pretrain" => Some(RowKind::Text),
        _ => None,
    }
}

fn columns(b: &mut JobBuilder, at: &str, dataset: &mut Dataset) {
    let columns: &[(&str, &'static str)] = match dataset.kind {
        RowKind::Completion => &[("field", "text")],
        RowKind::Chat => &[("field_messages", "messages")],
        RowKind::Alpaca => &[
            ("field_instruction", "instruction"),
            ("field_input", "input"),
            ("field_output", "output"),
            ("field_system", "system"),
        ],
        _ => &[],
    };
    for (name, meaning) in columns {
        if let Some(column) = field(b, &format!("{at}.{name}")) {
            dataset.fields.insert(meaning, column);
        }
    }
}

fn turns(b: &mut JobBuilder, at: &str, dataset: &mut Dataset) {
    if dataset.kind != RowKind::Chat {
        return;
    }
    let key = |name: &str| format!("{at}.{name}");
    for (name, meaning) in [
        ("message_field_role", "role"),
        ("message_field_content", "content"),
    ] {
        if let Some(column) = field(b, &key(name)) {
            dataset.fields.insert(meaning, column);
        }
    }
    if let Some(Value::Mapping(map)) = at_value(b, &key("message_property_mappings")) {
        for (name, column) in map {
            let meaning = match name.as_str() {
                Some("role") => "role",
                Some("content") => "content",
                _ => {
                    let path = key("message_property_mappings");
                    b.problem(
                        &path,
                        format!("has {}", shown(&name)),
                        "known are role and content",
                        None,
                    );
                    continue;
                }
            };
            dataset
                .fields
                .insert(meaning, column.as_str().unwrap_or_default().to_string());
        }
    }
    if let Some(Value::Mapping(map)) = at_value(b, &key("roles")) {
        let pair =
            |(role, given): (Value, Value)| Some((role.as_str()?.to_string(), names(&given)?));
        dataset.roles = map.into_iter().filter_map(pair).collect();
    }
    if let Some(roles) = at_value(b, &key("roles_to_train")).as_ref().and_then(names) {
        dataset.learnt = Learnt::Roles(roles);
    }
    dataset.learnt_ends = match at_value(b, &key("train_on_eos")) {
        Some(Value::String(word)) => Some(word),
        Some(Value::Bool(false)) => Some("none".to_string()),
        _ => Some("turn".to_string()),
    };
    let jinja = key("chat_template_jinja");
    if let Some(text) = field(b, &jinja) {
        dataset.template = TurnTemplate::Jinja(text);
    }
    match field(b, &key("chat_template")).as_deref() {
        None | Some("tokenizer_default") => {}
        Some(word) => {
            let remedy = "Axolotl's own templates are not known: set tokenizer_default";
            at_refuse(b, &key("chat_template"), &format!("\"{word}\""), remedy);
        }
    }
}

fn pretraining(b: &mut JobBuilder, at: &str) {
    let key = |name: &str| format!("{at}.{name}");
    let Some(path) = field(b, &key("path")) else {
        return b.missing(&key("path"), "name a file");
    };
    let kind = match field(b, &key("type")).as_deref() {
        None | Some("pretrain") => RowKind::Text,
        Some("completion") => RowKind::Completion,
        Some(word) => return at_refuse(b, &key("type"), word, "it is pretrain or completion"),
    };
    let mut dataset = Dataset::new(at, b.doc.place(at), path, kind);
    dataset.learnt = Learnt::All;
    for name in ["field", "text_column"] {
        if let Some(column) = field(b, &key(name)) {
            dataset.fields.insert("text", column);
        }
    }
    b.dataset(dataset);
}

/// The value at a path with indices; `None` where it is absent or null.
fn at_value(b: &mut JobBuilder, path: &str) -> Option<Value> {
    b.read.insert(path.to_string());
    let (list, rest) = path.split_once('[')?;
    let (index, name) = rest.split_once("].")?;
    let items = b.doc.get(list)?.as_sequence()?;
    let value = items.get(index.parse::<usize>().ok()?)?.get(name)?;
    (!value.is_null()).then(|| value.clone())
}

fn field(b: &mut JobBuilder, path: &str) -> Option<String> {
    let value = at_value(b, path)?;
    value.as_str().map(str::to_string)
}

fn at_refuse(b: &mut JobBuilder, path: &str, shown: &str, remedy: &str) {
    b.problem(path, format!("is {shown}"), remedy, None);
}
