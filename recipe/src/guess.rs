//! Whose job file a text is. No file says so, but the keys do.

use serde_yaml_ng::Value;

use crate::document::Document;
use crate::tables;
use crate::tool::Tool;

/// Keys that of all these tools only Concord has beside `base_model`.
const OWN_MARKS: [&str; 4] = ["initial_adapter", "recompute", "precision", "shuffle"];

/// Types of data sets that only Concord has.
const OWN_TYPES: [&str; 5] = [
    "text",
    "instruct",
    "tokens",
    "alpaca_turns",
    "prompt_completion",
];

/// Keys that LLaMA-Factory has and TRL lacks.
const FACTORY_MARKS: [&str; 11] = [
    "template",
    "cutoff_len",
    "finetuning_type",
    "stage",
    "dataset",
    "dataset_dir",
    "lora_rank",
    "lora_target",
    "quantization_bit",
    "preprocessing_num_workers",
    "overwrite_cache",
];

/// The tool whose file this seems to be, and by what.
pub(crate) fn tool_of(document: &Document) -> (Tool, String) {
    let root = document.root();
    let has = |key: &&str| root.contains_key(*key);
    if root.values().any(has_component) {
        return (Tool::Torchtune, "`_component_`".to_string());
    }
    if ["training", "lora"].iter().all(has) {
        return (Tool::Unsloth, "`training` and `lora`".to_string());
    }
    if has(&"base_model") {
        return axolotl_or_own(document);
    }
    let mark = FACTORY_MARKS.iter().copied().find(|key| has(key));
    match (has(&"model_name_or_path"), has(&"model"), mark) {
        (true, _, None) => (Tool::Trl, "`model_name_or_path`".to_string()),
        (true, _, Some(mark)) => (
            Tool::LlamaFactory,
            format!("`model_name_or_path` and `{mark}`"),
        ),
        (false, true, Some(mark)) => (Tool::LlamaFactory, format!("`model` and `{mark}`")),
        _ => (Tool::Concord, "no key of another tool's own".to_string()),
    }
}

/// Both write `base_model`, and share many keys: the file is the tool's of whose own keys it has
/// more, since each may have a few of the other's.
fn axolotl_or_own(document: &Document) -> (Tool, String) {
    let root = document.root();
    let mut own: Vec<String> = OWN_MARKS
        .into_iter()
        .filter(|mark| root.contains_key(*mark))
        .map(|mark| format!("`{mark}`"))
        .collect();
    let types = document.get("datasets").and_then(Value::as_sequence);
    let types = types.into_iter().flatten();
    let types = types.filter_map(|entry| entry.get("type")?.as_str());
    own.extend(
        types
            .filter(|word| OWN_TYPES.contains(word))
            .map(|word| format!("`type: {word}`")),
    );
    let keys = root.keys().filter_map(Value::as_str);
    let foreign: Vec<&str> = keys
        .filter(|key| !tables::OWN_KEYS.contains(key))
        .filter(|key| tables::find(Tool::Axolotl, key).is_some())
        .collect();
    match (own.first(), foreign.first()) {
        (mark, Some(first)) if mark.is_none() || foreign.len() > own.len() => {
            (Tool::Axolotl, format!("`base_model` and `{first}`"))
        }
        (Some(mark), _) => (Tool::Concord, mark.clone()),
        _ => (Tool::Concord, "no key of another tool's own".to_string()),
    }
}

fn has_component(value: &Value) -> bool {
    value.get("_component_").is_some()
}
