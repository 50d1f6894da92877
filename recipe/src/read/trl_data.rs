//! TRL's data sets: one set, or the mixture of the alignment-handbook. What a row is, TRL finds
//! from its columns.

use serde_yaml_ng::{Mapping, Value};

use crate::builder::{JobBuilder, names, number};
use crate::dataset::{Dataset, Learnt, RowKind, TooLong, TurnTemplate};
use crate::shown::shown;

pub fn read(b: &mut JobBuilder) {
    let learnt = learnt(b);
    let (kind, too_long) = kind(b);
    let template = match b.text("chat_template") {
        Some(text) => TurnTemplate::Jinja(text),
        None => TurnTemplate::Tokenizer,
    };
    let field = b.text("dataset_text_field");
    let mut sets = Vec::new();
    if let Some(name) = b.text("dataset_name") {
        let mut dataset = Dataset::new("dataset_name", b.doc.place("dataset_name"), name, kind);
        dataset.path_key = "dataset_name".to_string();
        dataset.name = b.text("dataset_config");
        dataset.split = b.text("dataset_train_split");
        sets.push(dataset);
    }
    for key in ["dataset_mixture", "datasets"] {
        if b.has(key) {
            mixture(b, key, kind, &mut sets);
        }
    }
    for key in ["dataset_mixer", "dataset_splits"] {
        if b.has(key) {
            let remedy = "it is a key of older versions: write dataset_mixture";
            b.refuse(key, remedy, None);
        }
    }
    dataset_kwargs(b);
    if sets.is_empty() && b.out.problems.is_empty() {
        b.missing("dataset_name", "name a file");
    }
    let test_split = test_split(b);
    for mut dataset in sets {
        dataset.learnt = learnt.clone();
        dataset.template = template.clone();
        dataset.too_long = too_long;
        if let Some(field) = &field {
            dataset.fields.insert("text", field.clone());
        }
        if dataset.at == "dataset_name" {
            let split = test_split.clone();
            let tested = split.map(|split| Dataset {
                split: Some(split),
                ..dataset.clone()
            });
            b.out.test_datasets.extend(tested);
            // What is evaluated is not learnt: `dataset_train_split` is train if absent.
            if test_split.is_some() && dataset.split.is_none() {
                dataset.split = Some("train".to_string());
            }
        }
        b.dataset(dataset);
    }
}

/// The split that is evaluated: of a set that is named by itself, where the loss is asked for and
/// no key of Concord's own says on what it is taken.
fn test_split(b: &mut JobBuilder) -> Option<String> {
    let strategy = b.word("eval_strategy").or(b.word("evaluation_strategy"));
    let asks = strategy.is_some_and(|word| word != "no" && word != "false");
    let own = ["val_set_size", "test_datasets"];
    let is_told = own.into_iter().any(|own| b.has(own));
    if asks && !is_told && b.has("dataset_name") {
        let given = b.text("dataset_test_split");
        return Some(given.unwrap_or_else(|| "test".to_string()));
    }
    if b.has("dataset_test_split") {
        b.idle(
            "dataset_test_split",
            "no split of dataset_name is evaluated",
        );
    }
    None
}

/// Conversations and texts are learnt whole, completions without their prompts.
fn learnt(b: &mut JobBuilder) -> Learnt {
    let (answers, completions) = (
        b.flag("assistant_only_loss"),
        b.flag("completion_only_loss"),
    );
    match (answers, completions) {
        (Some(true), _) | (_, Some(true)) => Learnt::Answers,
        _ => Learnt::All,
    }
}

/// What a row is, and what happens to one that is too long: by how examples are packed.
fn kind(b: &mut JobBuilder) -> (RowKind, TooLong) {
    let key = "packing_strategy";
    let strategy = b.word(key);
    let mut too_long = TooLong::Truncate;
    match (b.flag("packing") == Some(true), strategy.as_deref()) {
        (true, Some("wrapped")) => return (RowKind::Text, too_long),
        // The first versions called it by what is fitted first.
        (true, None | Some("bfd" | "ffd")) => {
            b.put("sample_packing", true, b.from("packing", ""));
        }
        (true, Some("bfd_split")) => {
            b.put("sample_packing", true, b.from("packing", ""));
            too_long = TooLong::Split;
        }
        (true, Some(_)) => {
            let remedy = "it is bfd, bfd_split or wrapped";
            b.refuse(key, remedy, Some("bfd"));
        }
        (false, Some(_)) => b.idle(key, "examples are not packed"),
        (false, None) => {}
    }
    (RowKind::ByColumns, too_long)
}

/// `{datasets: [{id, config, split, columns, weight}], seed, test_split_size}`.
fn mixture(b: &mut JobBuilder, key: &str, kind: RowKind, sets: &mut Vec<Dataset>) {
    let entries = match b.value(key) {
        Some(Value::Mapping(map)) => {
            mixture_keys(b, key, map);
            (format!("{key}.datasets"), map.get("datasets"))
        }
        Some(value) => (key.to_string(), Some(value)),
        None => return,
    };
    let (path, Some(Value::Sequence(items))) = entries else {
        b.problem(key, "has no list of data sets", "name at least one", None);
        return;
    };
    for (index, item) in items.iter().enumerate() {
        let at = format!("{path}[{index}]");
        match item {
            Value::Mapping(item) => sets.extend(entry(b, &at, item, kind)),
            item => b.problem(&at, format!("is {}", shown(item)), "write `id: FILE`", None),
        }
    }
}

fn mixture_keys(b: &mut JobBuilder, key: &str, map: &Mapping) {
    for (name, value) in map {
        let path = format!("{key}.{}", name.as_str().unwrap_or_default());
        match name.as_str() {
            _ if value.is_null() => {}
            Some("datasets") => {}
            Some("seed") => b.idle(&path, "rows are shuffled by `seed` alone"),
            // Read before: see `held_out`.
            Some("test_split_size") => {}
            _ => b.problem(&path, "is not known", "remove it", Some("null")),
        }
    }
}

fn entry(b: &mut JobBuilder, at: &str, item: &Mapping, kind: RowKind) -> Option<Dataset> {
    let id = ["id", "path"]
        .into_iter()
        .find_map(|key| item.get(key)?.as_str());
    let mut dataset = id.map(|id| Dataset::new(at, b.doc.place(at), id.to_string(), kind));
    for (name, value) in item.iter().filter(|(_, value)| !value.is_null()) {
        let name = name.as_str().unwrap_or_default();
        let path = format!("{at}.{name}");
        if let Some(dataset) = &mut dataset {
            let set = |to: &mut Option<String>| *to = value.as_str().map(str::to_string);
            match name {
                "id" | "path" => {
                    dataset.place = b.doc.place(&path);
                    dataset.path_key = path;
                    continue;
                }
                "config" | "name" if value.is_string() => {
                    set(&mut dataset.name);
                    continue;
                }
                "split" if value.is_string() => {
                    set(&mut dataset.split);
                    continue;
                }
                _ => {}
            }
        }
        match (name, number(value), names(value)) {
            ("weight", Some(weight), _) if weight > 0.0 && weight <= 1.0 => {
                if let (Some(dataset), true) = (&mut dataset, weight < 1.0) {
                    dataset.weight = Some(weight);
                }
            }
            ("columns", _, Some(columns)) => {
                if let Some(dataset) = &mut dataset {
                    dataset.columns = columns;
                }
            }
            _ => {
                let what = format!("is {}", shown(value));
                b.problem(
                    &path,
                    what,
                    "known are id, config, split, columns, and weight from 0 \
                    to 1",
                    Some("null"),
                );
            }
        }
    }
    if dataset.is_none() {
        b.missing(&format!("{at}.id"), "name a file");
    }
    dataset
}

/// The usual values are what happens anyway.
fn dataset_kwargs(b: &mut JobBuilder) {
    let Some(Value::Mapping(map)) = b.value("dataset_kwargs") else {
        return;
    };
    for (name, value) in map {
        let name = name.as_str().unwrap_or_default();
        let path = format!("dataset_kwargs.{name}");
        match (name, value) {
            ("add_special_tokens" | "append_concat_token", Value::Bool(false)) => {
                b.idle(&path, "the chat template alone puts tokens around turns");
            }
            _ => b.problem(
                &path,
                format!("is {}", shown(value)),
                "remove it",
                Some("null"),
            ),
        }
    }
}
