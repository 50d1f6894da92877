//! Axolotl's data sets.

use serde_yaml_ng::Value;

use super::axolotl_types::{self, InstructType, instruct_type};
use crate::builder::{JobBuilder, names, number};
use crate::dataset::{Dataset, Learnt, RowKind, TooLong, TurnTemplate};
use crate::shown::shown;
use crate::templates::{TEMPLATE_NAMES, named_template};

/// What to do where rows cannot be read.
fn types() -> String {
    format!(
        "types are {}, chat_template, completion, pretrain, input_output and none, which is token \
         ids: write the rows as turns of role and content, and set chat_template",
        axolotl_types::NAMES
    )
}

pub fn read(b: &mut JobBuilder) {
    let shared = Shared {
        too_long: too_long(b),
        all: b.flag("train_on_inputs") == Some(true),
        template: template(b, "chat_template", "chat_template_jinja"),
        end_tokens: b.names("eot_tokens").unwrap_or_default(),
    };
    for at in entries(b, "datasets") {
        if let Some(dataset) = entry(b, &at, &shared) {
            b.dataset(dataset);
        }
    }
    for at in entries(b, "test_datasets") {
        if let Some(dataset) = entry(b, &at, &shared) {
            let usual_split = Some("test");
            b.out.test_datasets.push(Dataset {
                usual_split,
                ..dataset
            });
        }
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
    let (word, text) = (b.word(name), b.text(jinja));
    chosen(word.as_deref(), text).unwrap_or_else(|| {
        b.refuse(name, &unknown_template(), Some("tokenizer_default"));
        TurnTemplate::Tokenizer
    })
}

/// The template of a name or a text; `None` where the name is not known.
fn chosen(name: Option<&str>, text: Option<String>) -> Option<TurnTemplate> {
    match (name, text) {
        (_, Some(text)) => Some(TurnTemplate::Jinja(text)),
        (None | Some("tokenizer_default"), _) => Some(TurnTemplate::Tokenizer),
        (Some(word), _) if word.starts_with("tokenizer_default_fallback_") => {
            Some(TurnTemplate::Tokenizer)
        }
        (Some(word), _) => named_template(word).map(|_| TurnTemplate::Named(word.to_string())),
    }
}

fn unknown_template() -> String {
    format!(
        "known by name are {}; the tokenizer's, which for most models is the same, is \
         tokenizer_default",
        TEMPLATE_NAMES.join(", ")
    )
}

/// What holds for all entries.
struct Shared {
    all: bool,
    template: TurnTemplate,
    too_long: TooLong,
    end_tokens: Vec<String>,
}

fn entry(b: &mut JobBuilder, at: &str, shared: &Shared) -> Option<Dataset> {
    let key = |name: &str| format!("{at}.{name}");
    let Some(path) = field(b, &key("path")) else {
        b.missing(&key("path"), "name a file");
        return None;
    };
    let given = at_value(b, &key("type"));
    let word = given.as_ref().and_then(Value::as_str);
    let written = word.and_then(instruct_type);
    let kind = match (&given, word) {
        (None, _) => Some(RowKind::Tokens),
        (Some(Value::Mapping(_)), _) => Some(RowKind::Instruct),
        (Some(_), Some(word)) => kind(word).or(written.as_ref().map(|_| RowKind::Instruct)),
        (Some(_), None) => None,
    };
    let Some(kind) = kind else {
        let given = given.as_ref().map(shown).unwrap_or_default();
        at_refuse(b, &key("type"), &given, &types());
        return None;
    };
    let mut dataset = Dataset::new(at, b.doc.place(at), path, kind);
    let all = shared.all || at_value(b, &key("train_on_inputs")) == Some(Value::Bool(true));
    dataset.learnt = match kind {
        RowKind::Completion | RowKind::Text => Learnt::All,
        _ if all => Learnt::All,
        _ => Learnt::Answers,
    };
    dataset.too_long = match kind {
        RowKind::Completion => TooLong::Split,
        _ => shared.too_long,
    };
    dataset.template = shared.template.clone();
    dataset.end_tokens = shared.end_tokens.clone();
    match written {
        Some(written) if kind == RowKind::Instruct => words(written, &mut dataset),
        None if kind == RowKind::Instruct => formats(b, &key("type"), &mut dataset),
        _ => {}
    }
    columns(b, at, &mut dataset);
    turns(b, at, &mut dataset);
    rows(b, at, &mut dataset);
    Some(dataset)
}

/// A type whose words are known.
fn words(written: InstructType, dataset: &mut Dataset) {
    let (instruction, output) = written.fields;
    dataset
        .fields
        .insert("instruction", instruction.to_string());
    dataset.fields.insert("output", output.to_string());
    dataset.format = Some(written.format);
    dataset.no_input_format = Some(written.no_input_format);
}

/// A type that is a mapping: how rows of an instruction are written.
fn formats(b: &mut JobBuilder, at: &str, dataset: &mut Dataset) {
    let map = at_value(b, at).and_then(|value| value.as_mapping().cloned());
    let map = map.unwrap_or_default();
    let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_string);
    for (key, meaning) in [
        ("field_instruction", "instruction"),
        ("field_input", "input"),
        ("field_output", "output"),
    ] {
        if let Some(column) = text(key).filter(|column| !column.is_empty()) {
            dataset.fields.insert(meaning, column);
        }
    }
    if text("field_system").is_some_and(|field| !field.is_empty()) {
        let remedy = "a system text of each row is read in conversations alone: set chat_template, \
                      or give one system_prompt for all";
        at_refuse(b, &format!("{at}.field_system"), "a field", remedy);
    }
    let Some(format) = text("format") else {
        return b.missing(
            &format!("{at}.format"),
            "set it, such as \"{instruction}\\n{input}\\n\"",
        );
    };
    let system = text("system_prompt").filter(|system| !system.is_empty());
    let system = system.map_or(String::new(), |system| {
        let around = text("system_format").unwrap_or_else(|| "{system}".to_string());
        let plain = system.replace('{', "{{").replace('}', "}}");
        around.replace("{system}", &plain)
    });
    let without = text("no_input_format").unwrap_or_else(|| format.clone());
    dataset.format = Some(format!("{system}{format}"));
    dataset.no_input_format = Some(format!("{system}{without}"));
}

/// Which files and which rows are taken.
fn rows(b: &mut JobBuilder, at: &str, dataset: &mut Dataset) {
    let key = |name: &str| format!("{at}.{name}");
    dataset.name = field(b, &key("name"));
    dataset.revision = field(b, &key("revision"));
    dataset.split = field(b, &key("split"));
    if let Some(files) = at_value(b, &key("data_files")).as_ref().and_then(names) {
        dataset.data_files = files;
    }
    if let Some(fields) = at_value(b, &key("ignore_fields")).as_ref().and_then(names) {
        dataset.ignored = fields;
    }
    shard(b, at, dataset);
}

/// The part of the rows that is taken.
fn shard(b: &mut JobBuilder, at: &str, dataset: &mut Dataset) {
    let [shards, index] = ["shards", "shards_idx"].map(|name| format!("{at}.{name}"));
    let (of, taken) = (number_at(b, &shards), number_at(b, &index));
    match (of, taken.unwrap_or(0.0)) {
        (None, _) if taken.is_none() => {}
        // As Axolotl takes it, 0 is none.
        (Some(0.0 | 1.0), 0.0) => {}
        (Some(of), taken) if whole(of) && whole(taken) && taken < of => {
            dataset.shard = Some((of as u64, taken as u64));
            b.note(format!(
                "`{shards}`: rows are shuffled by `seed` before they are divided, into an order of \
                 Concord's own"
            ));
        }
        _ => {
            let remedy = "shards is a whole number, and shards_idx one below it";
            at_refuse(b, &shards, "no part of the rows", remedy);
        }
    }
}

fn whole(number: f64) -> bool {
    number >= 0.0 && number.fract() == 0.0 && number < f64::from(u32::MAX)
}

fn number_at(b: &mut JobBuilder, path: &str) -> Option<f64> {
    at_value(b, path).as_ref().and_then(number)
}

fn kind(word: &str) -> Option<RowKind> {
    match word {
        "alpaca" => Some(RowKind::Alpaca),
        "chat_template" | "chat_template.default" => Some(RowKind::Chat),
        "completion" => Some(RowKind::Completion),
        "pretrain" => Some(RowKind::Text),
        "input_output" => Some(RowKind::Segments),
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
    turn_names(b, at, dataset);
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
    let (name, jinja) = (key("chat_template"), key("chat_template_jinja"));
    let (word, text) = (field(b, &name), field(b, &jinja));
    if word.is_some() || text.is_some() {
        match chosen(word.as_deref(), text) {
            Some(template) => dataset.template = template,
            None => at_refuse(
                b,
                &name,
                &format!("\"{}\"", word.unwrap_or_default()),
                &unknown_template(),
            ),
        }
    }
    dataset.drops_system = at_value(b, &key("drop_system_message")) == Some(Value::Bool(true));
    if let Some(field) = field(b, &key("message_field_training")) {
        dataset.fields.insert("training", field);
    }
}

/// What turns call what the chat template reads.
fn turn_names(b: &mut JobBuilder, at: &str, dataset: &mut Dataset) {
    let key = |name: &str| format!("{at}.{name}");
    for (name, meaning) in [
        ("message_field_role", "role"),
        ("message_field_content", "content"),
    ] {
        if let Some(column) = field(b, &key(name)) {
            dataset.fields.insert(meaning, column);
        }
    }
    let mappings = key("message_property_mappings");
    if let Some(Value::Mapping(map)) = at_value(b, &mappings) {
        for (name, column) in map {
            let (Some(name), Some(column)) = (name.as_str(), column.as_str()) else {
                let what = format!("has {}: {}", shown(&name), shown(&column));
                b.problem(&mappings, what, "it maps names to names", None);
                continue;
            };
            let column = column.to_string();
            match name {
                "role" => dataset.fields.insert("role", column),
                "content" => dataset.fields.insert("content", column),
                name => dataset.properties.insert(name.to_string(), column),
            };
        }
    }
    let thought = field(b, &key("field_thinking"));
    let name = field(b, &key("template_thinking_key"));
    if thought.is_some() || name.is_some() {
        let usual = || "reasoning_content".to_string();
        let name = name.unwrap_or_else(usual);
        let thought = thought.unwrap_or_else(usual);
        dataset.properties.entry(name).or_insert(thought);
    }
}

fn pretraining(b: &mut JobBuilder, at: &str) {
    let key = |name: &str| format!("{at}.{name}");
    let Some(path) = field(b, &key("path")) else {
        return b.missing(&key("path"), "name a file");
    };
    // Texts that share a sequence are joined, unless they are packed and kept apart.
    let is_packed = b.flag("sample_packing") == Some(true);
    let is_apart = b.flag("pretrain_multipack_attn") != Some(false);
    let kind = match field(b, &key("type")).as_deref() {
        None | Some("pretrain") if is_packed && is_apart => RowKind::Completion,
        None | Some("pretrain") => RowKind::Text,
        Some("completion") => RowKind::Completion,
        Some(word) => return at_refuse(b, &key("type"), word, "it is pretrain or completion"),
    };
    let mut dataset = Dataset::new(at, b.doc.place(at), path, kind);
    dataset.learnt = Learnt::All;
    if kind == RowKind::Completion {
        dataset.too_long = TooLong::Split;
    }
    rows(b, at, &mut dataset);
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
