//! A job of another tool as Concord's keys.

use std::collections::BTreeMap;
use std::path::Path;

use concord_models::hub;
use concord_recipe::{
    Dataset, Idle, Learnt, Place, Problem, Resolved, RowKind, Setting, TooLong, TurnTemplate,
    ValueSource,
};
use serde_yaml_ng::{Mapping, Value};

use super::columns;

/// Concord's keys, and where each comes from.
pub(super) fn keys(job: &mut Resolved) -> (Mapping, BTreeMap<String, ValueSource>) {
    let mut made = Made::default();
    let settings = std::mem::take(&mut job.settings);
    for setting in &settings {
        made.setting(setting);
    }
    revise(job, &mut made);
    job.settings = settings;
    for (key, sets) in [
        ("datasets", &job.datasets),
        ("test_datasets", &job.test_datasets),
    ] {
        let mut entries = Vec::new();
        for (index, dataset) in sets.iter().enumerate() {
            let path = format!("{key}[{index}]");
            match made.dataset(&path, dataset) {
                Ok(entry) => entries.push(Value::Mapping(entry)),
                Err(problem) => job.problems.push(problem),
            }
        }
        if !entries.is_empty() {
            made.map.insert(yaml(key), Value::Sequence(entries));
        }
    }
    (made.map, made.sources)
}

/// Names the revision of a base model of the hub behind its name. A folder has none.
fn revise(job: &mut Resolved, made: &mut Made) {
    let Some(Setting { value, source, .. }) = &job.model_revision else {
        return;
    };
    let (base, revision) = (made.map.get("base_model"), value.as_str());
    let (Some(base), Some(revision)) = (base.and_then(Value::as_str), revision) else {
        return;
    };
    let place = source.place.unwrap_or(Place::File);
    let key = source.key.clone();
    if hub::is_here(base) || base.contains('@') {
        let why = "base_model is a folder, or has a revision behind its name".to_string();
        return job.idle.push(Idle { place, key, why });
    }
    let named = format!("{base}@{revision}");
    made.map.insert(yaml("base_model"), yaml(named));
    let how = format!("with `{key}`");
    if let Some(source) = made.sources.get_mut("base_model") {
        source.how = how;
    }
}

#[derive(Default)]
struct Made {
    map: Mapping,
    sources: BTreeMap<String, ValueSource>,
}

impl Made {
    fn setting(&mut self, setting: &Setting) {
        let Setting { key, value, source } = setting;
        self.map.insert(yaml(*key), value.clone());
        self.sources.insert(key.to_string(), source.clone());
    }

    /// The entry of `datasets` for a data set, at `path`.
    fn dataset(&mut self, path: &str, dataset: &Dataset) -> Result<Mapping, Problem> {
        let fail = |why| Problem {
            place: dataset.place,
            key: dataset.at.clone(),
            what: format!("names {}: {why}", dataset.path),
            remedy: String::new(),
            set: None,
        };
        let mut seen = dataset.clone();
        if seen.split.is_none() && !Path::new(&seen.path).is_file() {
            seen.split = seen.usual_split.map(str::to_string);
        }
        if matches!(dataset.kind, RowKind::ByColumns | RowKind::Guessed) {
            columns::see(&mut seen).map_err(fail)?;
        }
        let (dataset, kind) = (&seen, seen.kind);
        let mut entry = Mapping::new();
        for (key, value) in entry_keys(kind, dataset) {
            let at = ValueSource {
                place: Some(dataset.place),
                key: match key {
                    "path" => dataset.path_key.clone(),
                    _ => dataset.at.clone(),
                },
                how: String::new(),
            };
            self.sources.insert(format!("{path}.{key}"), at);
            entry.insert(yaml(key), value);
        }
        Ok(entry)
    }
}

/// The word for `type`.
fn word(kind: RowKind) -> &'static str {
    match kind {
        RowKind::Text => "text",
        RowKind::Completion | RowKind::ByColumns | RowKind::Guessed => "completion",
        RowKind::Alpaca => "alpaca",
        RowKind::AlpacaChat => "alpaca_turns",
        RowKind::Chat => "chat_template",
        RowKind::PromptCompletion => "prompt_completion",
        RowKind::Instruct => "instruct",
        RowKind::Segments => "input_output",
        RowKind::Tokens => "tokens",
    }
}

/// Keys of an entry that differ from what is usual for its type.
fn entry_keys(kind: RowKind, dataset: &Dataset) -> Vec<(&'static str, Value)> {
    let mut keys = vec![("path", yaml(&*dataset.path)), ("type", yaml(word(kind)))];
    let column = |meaning: &str| dataset.fields.get(meaning).map(|column| yaml(&**column));
    let columns: &[(&str, &'static str)] = match kind {
        RowKind::Text | RowKind::Completion | RowKind::ByColumns | RowKind::Guessed => {
            &[("text", "field")]
        }
        RowKind::Segments | RowKind::Tokens => &[],
        RowKind::Alpaca | RowKind::AlpacaChat | RowKind::Instruct => &[
            ("instruction", "field_instruction"),
            ("input", "field_input"),
            ("output", "field_output"),
        ],
        RowKind::PromptCompletion => &[
            ("prompt", "field_instruction"),
            ("completion", "field_output"),
        ],
        RowKind::Chat => &[("messages", "field_messages")],
    };
    for (meaning, key) in columns {
        keys.extend(column(meaning).map(|column| (*key, column)));
    }
    if kind == RowKind::Chat {
        turn_keys(dataset, &mut keys);
    }
    template_keys(kind, dataset, &mut keys);
    row_keys(dataset, &mut keys);
    let is_whole = matches!(kind, RowKind::Text | RowKind::Completion);
    if dataset.learnt == Learnt::All && !is_whole {
        keys.push(("train_on_inputs", Value::Bool(true)));
    }
    let usual = match kind {
        RowKind::Completion => TooLong::Split,
        _ => TooLong::Truncate,
    };
    if kind != RowKind::Text && dataset.too_long != usual {
        keys.push(("excess_length_strategy", yaml(too_long(dataset.too_long))));
    }
    if let Some(rows) = dataset.max_rows {
        keys.push(("max_samples", Value::from(rows)));
    }
    keys
}

fn turn_keys(dataset: &Dataset, keys: &mut Vec<(&'static str, Value)>) {
    let mut properties = Mapping::new();
    for name in ["role", "content"] {
        if let Some(column) = dataset.fields.get(name).filter(|column| *column != name) {
            properties.insert(yaml(name), yaml(&**column));
        }
    }
    for (name, field) in &dataset.properties {
        properties.insert(yaml(&**name), yaml(&**field));
    }
    if !properties.is_empty() {
        keys.push(("message_property_mappings", Value::Mapping(properties)));
    }
    if !dataset.roles.is_empty() {
        let list =
            |names: &Vec<String>| Value::Sequence(names.iter().map(|n| yaml(&**n)).collect());
        let roles = dataset
            .roles
            .iter()
            .map(|(role, names)| (yaml(&**role), list(names)));
        keys.push(("roles", Value::Mapping(roles.collect())));
    }
    if let Learnt::Roles(roles) = &dataset.learnt {
        let roles = roles.iter().map(|role| yaml(&**role));
        keys.push(("roles_to_train", Value::Sequence(roles.collect())));
    }
    if let Some(ends) = dataset
        .learnt_ends
        .as_deref()
        .filter(|ends| *ends != "turn")
    {
        keys.push(("train_on_eos", yaml(ends)));
    }
    if let Some(field) = dataset.fields.get("training") {
        keys.push(("message_field_training", yaml(&**field)));
    }
}

/// Keys on what goes through a chat template.
fn template_keys(kind: RowKind, dataset: &Dataset, keys: &mut Vec<(&'static str, Value)>) {
    if !matches!(
        kind,
        RowKind::Chat | RowKind::AlpacaChat | RowKind::PromptCompletion
    ) {
        return;
    }
    match &dataset.template {
        TurnTemplate::Jinja(text) | TurnTemplate::Named(text) => {
            keys.push(("chat_template", yaml(&**text)));
        }
        TurnTemplate::Tokenizer => {}
    }
    if !dataset.end_tokens.is_empty() {
        keys.push(("eot_tokens", list(&dataset.end_tokens)));
    }
    for (key, is_on) in [
        ("drop_system_message", dataset.drops_system),
        ("mask_history", dataset.last_answer),
    ] {
        if is_on {
            keys.push((key, Value::Bool(true)));
        }
    }
}

/// Keys on which files and which rows are taken, and what of these.
fn row_keys(dataset: &Dataset, keys: &mut Vec<(&'static str, Value)>) {
    for (key, text) in [
        ("name", &dataset.name),
        ("revision", &dataset.revision),
        ("split", &dataset.split),
        ("format", &dataset.format),
        ("no_input_format", &dataset.no_input_format),
    ] {
        keys.extend(text.as_ref().map(|text| (key, yaml(&**text))));
    }
    for (key, names) in [
        ("data_files", &dataset.data_files),
        ("ignore_fields", &dataset.ignored),
        ("columns", &dataset.columns),
    ] {
        if !names.is_empty() {
            keys.push((key, list(names)));
        }
    }
    if let Some(weight) = dataset.weight {
        keys.push(("weight", Value::from(weight)));
    }
    if let Some((of, index)) = dataset.shard {
        keys.push(("shards", Value::from(of)));
        keys.push(("shards_idx", Value::from(index)));
    }
}

fn list(names: &[String]) -> Value {
    Value::Sequence(names.iter().map(|name| yaml(&**name)).collect())
}

fn too_long(rule: TooLong) -> &'static str {
    match rule {
        TooLong::Drop => "drop",
        TooLong::Truncate => "truncate",
        TooLong::Split => "split",
        TooLong::Refuse => "error",
        TooLong::ShortenTurns => "shorten_turns",
    }
}

/// A text as a YAML value.
fn yaml(text: impl Into<String>) -> Value {
    Value::String(text.into())
}
