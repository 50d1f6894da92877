//! A job of another tool as Concord's keys. What Concord's table of keys lacks is a problem of the
//! job, so that each new key of the table is used here by itself.

use std::collections::BTreeMap;

use concord_recipe::{
    Dataset, Kind, Learnt, Place, Problem, Resolved, Setting, Source, Template, TooLong,
};
use serde_yaml_ng::{Mapping, Value};

use super::columns;
use super::given::{has_key, yaml};
use super::known::{Allowed, Section};

/// Settings that are what happens without the key, where the table lacks it.
const IMPLIED: [(&str, &str); 1] = [("optimizer", "adamw_torch")];

/// Concord's keys, and where each comes from.
pub(super) fn keys(job: &mut Resolved) -> (Mapping, BTreeMap<String, Source>) {
    let mut made = Made::default();
    let settings = std::mem::take(&mut job.settings);
    for setting in &settings {
        made.setting(setting, &mut job.problems);
    }
    job.settings = settings;
    let mut entries = Vec::new();
    for (index, dataset) in job.datasets.iter().enumerate() {
        let path = format!("datasets[{index}]");
        match made.dataset(&path, dataset) {
            Ok(entry) => entries.push(Value::Mapping(entry)),
            Err(problem) => job.problems.push(problem),
        }
    }
    if !entries.is_empty() {
        made.map.insert(yaml("datasets"), Value::Sequence(entries));
    }
    (made.map, made.sources)
}

#[derive(Default)]
struct Made {
    map: Mapping,
    sources: BTreeMap<String, Source>,
}

impl Made {
    fn setting(&mut self, setting: &Setting, problems: &mut Vec<Problem>) {
        let Setting { key, value, source } = setting;
        if !has_key(Section::Job, key) {
            let is_implied = IMPLIED.iter().any(|(k, v)| k == key && value == *v);
            if !is_implied {
                problems.push(Problem {
                    place: source.place.unwrap_or(Place::File),
                    key: source.key.clone(),
                    what: format!(
                        "is `{key}: {}` here, which is not computed yet",
                        shown(value)
                    ),
                    remedy: implied(key),
                    set: implied_set(key, &source.key),
                });
            }
            return;
        }
        self.map.insert(yaml(*key), value.clone());
        self.sources.insert(key.to_string(), source.clone());
    }

    /// The entry of `datasets` for a data set, at `path`.
    fn dataset(&mut self, path: &str, dataset: &Dataset) -> Result<Mapping, Problem> {
        let fail = |key: &str, what: String, remedy: &str| Problem {
            place: dataset.place,
            key: format!("{}{key}", dataset.at),
            what,
            remedy: remedy.to_string(),
            set: None,
        };
        let kind = match dataset.kind {
            Kind::ByColumns => columns::kind(&dataset.path)
                .map_err(|why| fail("", format!("names {}: {why}", dataset.path), ""))?,
            kind => kind,
        };
        let word = word(kind);
        if !is_read(word) {
            let what = format!("has rows that are {}, which are not read yet", kind.words());
            let remedy =
                "write them as instruction and output, in a job file with `type: instruct`";
            return Err(fail("", what, remedy));
        }
        let mut entry = Mapping::new();
        for (key, value) in entry_keys(kind, dataset) {
            if !has_key(Section::Dataset, key) {
                let what = format!("needs `{key}`, which is not read yet");
                return Err(fail("", what, ""));
            }
            let at = Source {
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

fn implied(key: &str) -> String {
    let found = IMPLIED.iter().find(|(implied, _)| *implied == key);
    found.map_or(String::new(), |(_, value)| format!("set {value}"))
}

fn implied_set(key: &str, from: &str) -> Option<String> {
    let found = IMPLIED.iter().find(|(implied, _)| *implied == key);
    found.map(|(_, value)| format!("{from}={value}"))
}

fn shown(value: &Value) -> String {
    serde_yaml_ng::to_string(value)
        .unwrap_or_default()
        .trim_end()
        .to_string()
}

/// The word for `type`.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Completion | Kind::ByColumns => "completion",
        Kind::Alpaca => "alpaca",
        Kind::AlpacaChat => "alpaca_turns",
        Kind::Chat => "chat_template",
        Kind::PromptCompletion => "prompt_completion",
    }
}

/// Whether data sets of a type are read.
pub(super) fn is_read(word: &str) -> bool {
    let kind = Section::Dataset.keys().find(|key| key.name == "type");
    kind.is_some_and(|key| match key.allowed {
        Allowed::Words(words) => words.contains(&word),
        _ => false,
    })
}

/// Keys of an entry that differ from what is usual for its type.
fn entry_keys(kind: Kind, dataset: &Dataset) -> Vec<(&'static str, Value)> {
    let mut keys = vec![("path", yaml(&*dataset.path)), ("type", yaml(word(kind)))];
    let column = |meaning: &str| dataset.fields.get(meaning).map(|column| yaml(&**column));
    let columns: &[(&str, &'static str)] = match kind {
        Kind::Text | Kind::Completion | Kind::ByColumns => &[("text", "field")],
        Kind::Alpaca | Kind::AlpacaChat => &[
            ("instruction", "field_instruction"),
            ("input", "field_input"),
            ("output", "field_output"),
        ],
        Kind::PromptCompletion => &[
            ("prompt", "field_instruction"),
            ("completion", "field_output"),
        ],
        Kind::Chat => &[("messages", "field_messages")],
    };
    for (meaning, key) in columns {
        keys.extend(column(meaning).map(|column| (*key, column)));
    }
    if kind == Kind::Chat {
        turn_keys(dataset, &mut keys);
    }
    let is_whole = matches!(kind, Kind::Text | Kind::Completion | Kind::ByColumns);
    if dataset.learnt == Learnt::All && !is_whole {
        keys.push(("train_on_inputs", Value::Bool(true)));
    }
    let usual = match kind {
        Kind::Completion => TooLong::Split,
        _ => TooLong::Truncate,
    };
    if kind != Kind::Text && dataset.too_long != usual {
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
    if let Template::Jinja(text) = &dataset.template {
        keys.push(("chat_template", yaml(&**text)));
    }
}

fn too_long(rule: TooLong) -> &'static str {
    match rule {
        TooLong::Drop => "drop",
        TooLong::Truncate => "truncate",
        TooLong::Split => "split",
        TooLong::Refuse => "error",
    }
}
