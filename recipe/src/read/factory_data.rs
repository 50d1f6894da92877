//! LLaMA-Factory's data sets: names that are looked up in dataset_info.json.

use serde_json::{Map, Value};
use serde_yaml_ng::Value as Yaml;

use crate::Files;
use crate::builder::JobBuilder;
use crate::dataset::{Dataset, Learnt, RowKind, TooLong, TurnTemplate};
use crate::templates::FactoryTemplate;

/// Keys of an entry of dataset_info.json.
const ENTRY: [&str; 10] = [
    "file_name",
    "hf_hub_url",
    "formatting",
    "columns",
    "tags",
    "ranking",
    "subset",
    "split",
    "folder",
    "num_samples",
];

/// Columns of its alpaca format, their names if not given, and what they hold.
const ALPACA: [(&str, &str, &str); 4] = [
    ("prompt", "instruction", "instruction"),
    ("query", "input", "input"),
    ("response", "output", "output"),
    ("system", "", "system"),
];

/// Tags of its turns, and what they mean.
const TAGS: [(&str, &str); 5] = [
    ("user_tag", "user"),
    ("assistant_tag", "assistant"),
    ("observation_tag", "tool"),
    ("function_tag", "assistant"),
    ("system_tag", "system"),
];

pub fn read(b: &mut JobBuilder, files: Files) {
    let is_texts = match b.word("stage").as_deref() {
        None | Some("sft") => false,
        Some("pt") => true,
        Some(_) => {
            b.refuse("stage", "only sft and pt are computed", None);
            false
        }
    };
    if b.flag("packing") == Some(true) && !is_texts {
        let remedy = "examples are not packed, and attention does not cross them: turn it off";
        b.refuse("packing", remedy, Some("false"));
    }
    if b.flag("packing") == Some(false) && is_texts {
        b.refuse(
            "packing",
            "texts of stage pt are joined and cut",
            Some("null"),
        );
    }
    let all = b.flag("train_on_prompt") == Some(true);
    let max_rows = b.whole("max_samples");
    let keys = ["dataset", "eval_dataset"];
    let [names, tested] = keys.map(|key| b.names(key).unwrap_or_default());
    if names.is_empty() {
        return b.missing("dataset", "name at least one data set");
    }
    mix(b, names.len(), tested.len());
    let template = template(b);
    let last_answer = b.flag("mask_history") == Some(true);
    let too_long = match is_texts {
        true => TooLong::Truncate,
        false => too_long(b, all || last_answer),
    };
    let dir = b.text("dataset_dir").unwrap_or_else(|| "data".to_string());
    let Some(info) = info(b, &dir, files) else {
        return;
    };
    for (key, names) in keys.into_iter().zip([names, tested]) {
        for name in names {
            let Some(mut dataset) = named(b, (key, &name), (&dir, &info), is_texts) else {
                continue;
            };
            dataset.max_rows = least(dataset.max_rows, max_rows);
            dataset.template = template.clone();
            dataset.last_answer = last_answer;
            dataset.too_long = too_long;
            if all || is_texts {
                dataset.learnt = Learnt::All;
            }
            match key {
                "dataset" => b.dataset(dataset),
                _ => b.out.test_datasets.push(dataset),
            }
        }
    }
}

/// How so many data sets are put together, and so many to be evaluated.
fn mix(b: &mut JobBuilder, count: usize, tested: usize) {
    let strategy = b.word("mix_strategy").unwrap_or_default();
    let shares = b.numbers("interleave_probs");
    let alternates = strategy.starts_with("interleave_");
    if !alternates || count < 2 {
        let why = match count < 2 {
            true => "there is one data set",
            false => "data sets are joined",
        };
        let idle = ["mix_strategy", "interleave_probs"].into_iter();
        for key in idle.filter(|key| b.has(key)).collect::<Vec<_>>() {
            match key == "mix_strategy" && !alternates && strategy != "concat" {
                true => b.refuse(
                    key,
                    "it is concat, interleave_under or interleave_over",
                    None,
                ),
                false => b.idle(key, why),
            }
        }
        return;
    }
    if tested > 1 {
        let remedy = "data sets to be evaluated are joined: name one in eval_dataset, or join them";
        b.refuse("mix_strategy", remedy, Some("concat"));
    }
    b.copy("mix_strategy", "mix_strategy");
    if let Some(shares) = shares {
        let shares: Vec<Yaml> = shares.into_iter().map(Yaml::from).collect();
        b.put("interleave_probs", shares, b.from("interleave_probs", ""));
    }
}

/// What happens to longer examples. `loses_turns` is whether what is learnt does not show where
/// turns begin and end.
fn too_long(b: &mut JobBuilder, loses_turns: bool) -> TooLong {
    let named = b.text("template").map(|name| FactoryTemplate {
        name,
        ..FactoryTemplate::default()
    });
    let ends_answers = named.is_none_or(|template| template.ends_answers());
    match !loses_turns && ends_answers {
        true => TooLong::ShortenTurns,
        false => {
            b.note(
                "of an example that is longer than cutoff_len the end is cut off; LLaMA-Factory \
                 cuts each of its turns",
            );
            TooLong::Truncate
        }
    }
}

/// The data set that `key` names, by its entry in dataset_info.json.
fn named(
    b: &mut JobBuilder,
    (key, name): (&str, &str),
    (dir, info): (&str, &Map<String, Value>),
    is_texts: bool,
) -> Option<Dataset> {
    let Some(Value::Object(entry)) = info.get(name) else {
        let what = format!("names {name}, which {dir}/dataset_info.json lacks");
        b.problem(key, what, "add it there", None);
        return None;
    };
    entry_of(b, (key, name), dir, entry, is_texts)
}

/// The smaller of two numbers of rows.
fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The template of conversations, with what the file says of it.
fn template(b: &mut JobBuilder) -> TurnTemplate {
    let name = b.text("template");
    let default_system = b.text("default_system");
    let thinks = b.flag("enable_thinking");
    let Some(name) = name else {
        for key in ["default_system", "enable_thinking"] {
            if b.has(key) && !(key == "enable_thinking" && thinks == Some(true)) {
                b.refuse(
                    key,
                    "it belongs to a `template`: set that, too",
                    Some("null"),
                );
            }
        }
        return TurnTemplate::Tokenizer;
    };
    let template = FactoryTemplate {
        name,
        default_system,
        thinks: thinks != Some(false),
    };
    match template.has_thoughts() {
        true if b.flag("mask_history") == Some(true) => b.refuse(
            "mask_history",
            "with thoughts, versions of LLaMA-Factory differ in what is left of earlier ones: \
             turn it off, or name a template without thoughts",
            Some("false"),
        ),
        false if thinks == Some(false) => {
            b.idle("enable_thinking", "the template has no thoughts");
        }
        _ => {}
    }
    match template.jinja() {
        Ok(text) => TurnTemplate::Jinja(text),
        Err(known) => {
            b.refuse("template", &known, Some("null"));
            TurnTemplate::Tokenizer
        }
    }
}

fn info(b: &mut JobBuilder, dir: &str, files: Files) -> Option<Map<String, Value>> {
    let path = format!("{dir}/dataset_info.json");
    let text = match files(&path) {
        Ok(text) => text,
        Err(why) => {
            let what = format!("is looked up in {path}: {why}");
            b.problem("dataset", what, "set dataset_dir to its folder", None);
            return None;
        }
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Some(map),
        Ok(_) => {
            b.problem(
                "dataset",
                format!("is looked up in {path}, which has no names"),
                "",
                None,
            );
            None
        }
        Err(error) => {
            let what = format!("is looked up in {path}, which is not JSON: {error}");
            b.problem("dataset", what, "", None);
            None
        }
    }
}

fn entry_of(
    b: &mut JobBuilder,
    (key, name): (&str, &str),
    dir: &str,
    entry: &Map<String, Value>,
    is_texts: bool,
) -> Option<Dataset> {
    let read = check(entry).and_then(|()| {
        let kind = kind(entry, is_texts)?;
        let mut dataset = Dataset::new(key, b.doc.place(key), path(dir, entry)?, kind);
        dataset.path_key = key.to_string();
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_string);
        if entry.get("file_name").is_none() {
            dataset.name = text("subset");
            dataset.data_files = text("folder")
                .map(|folder| format!("{folder}/*"))
                .into_iter()
                .collect();
        }
        dataset.split = text("split");
        dataset.max_rows = entry.get("num_samples").and_then(Value::as_u64);
        let empty = Map::new();
        let map = |key: &str| entry.get(key).and_then(Value::as_object).unwrap_or(&empty);
        let is_open_ai = entry.get("formatting").is_some_and(|form| form == "openai");
        columns(&mut dataset, map("columns"), map("tags"), is_open_ai)
            .map_err(|strange| format!("has the column or tag {strange}, which is not read"))?;
        Ok(dataset)
    });
    match read {
        Ok(dataset) => Some(dataset),
        Err(why) => {
            let what = format!("names {name}, whose entry {why}");
            let remedy = "download its file, and name that in file_name";
            b.problem(key, what, remedy, None);
            None
        }
    }
}

/// Refuses an entry of which something would be left out.
fn check(entry: &Map<String, Value>) -> Result<(), String> {
    if let Some(strange) = entry.keys().find(|key| !ENTRY.contains(&key.as_str())) {
        return Err(format!("has {strange}"));
    }
    let is_set = |key: &str| {
        let value = entry.get(key);
        value.is_some_and(|value| *value != Value::Bool(false) && !value.is_null())
    };
    if is_set("ranking") {
        return Err("has ranking, which is not read".to_string());
    }
    if is_set("file_name") && (is_set("subset") || is_set("folder")) {
        return Err("has subset or folder, which belong to a set of the hub".to_string());
    }
    Ok(())
}

/// The file of an entry, or its set of the hub.
fn path(dir: &str, entry: &Map<String, Value>) -> Result<String, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    match (text("hf_hub_url"), text("file_name")) {
        // A set of the hub has precedence there, too.
        (Some(id), _) => Ok(id.to_string()),
        (None, Some(file)) => Ok(format!("{dir}/{file}")),
        (None, None) => Err("has neither file_name nor hf_hub_url".to_string()),
    }
}

fn kind(entry: &Map<String, Value>, is_texts: bool) -> Result<RowKind, String> {
    match (entry.get("formatting").and_then(Value::as_str), is_texts) {
        (None | Some("alpaca"), true) => Ok(RowKind::Text),
        (None | Some("alpaca"), false) => Ok(RowKind::AlpacaChat),
        (Some("sharegpt" | "openai"), false) => Ok(RowKind::Chat),
        (other, _) => Err(format!("has the format {}", other.unwrap_or("alpaca"))),
    }
}

/// Columns and tags; an error names one that is not read.
fn columns(
    dataset: &mut Dataset,
    columns: &Map<String, Value>,
    tags: &Map<String, Value>,
    is_open_ai: bool,
) -> Result<(), String> {
    let text = |map: &Map<String, Value>, key: &str, default: &str| {
        map.get(key)
            .and_then(Value::as_str)
            .unwrap_or(default)
            .to_string()
    };
    if dataset.kind == RowKind::Chat {
        if let Some(key) = columns
            .keys()
            .find(|key| *key != "messages" && *key != "system")
        {
            return Err(key.clone());
        }
        let (role, content) = match is_open_ai {
            true => ("role", "content"),
            false => ("from", "value"),
        };
        dataset
            .fields
            .insert("messages", text(columns, "messages", "conversations"));
        dataset.fields.insert("role", text(tags, "role_tag", role));
        dataset
            .fields
            .insert("content", text(tags, "content_tag", content));
        for (tag, meaning) in TAGS {
            if let Some(name) = tags.get(tag).and_then(Value::as_str) {
                let names = dataset.roles.entry(meaning.to_string()).or_default();
                names.push(name.to_string());
            }
        }
        return Ok(());
    }
    let known = |key: &String| ALPACA.iter().any(|(column, _, _)| column == key);
    if let Some(key) = columns.keys().chain(tags.keys()).find(|key| !known(key)) {
        return Err(key.clone());
    }
    if dataset.kind == RowKind::Text {
        dataset
            .fields
            .insert("text", text(columns, "prompt", "instruction"));
        return Ok(());
    }
    for (column, default, meaning) in ALPACA {
        let name = text(columns, column, default);
        if !name.is_empty() {
            dataset.fields.insert(meaning, name);
        }
    }
    Ok(())
}
