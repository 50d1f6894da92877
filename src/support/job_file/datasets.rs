//! The data sets of a job file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use concord_data::{
    DatasetKind, DatasetSource, ExcessLength, HubChoice, Mix, MixEnd, Shard, TrainedEnds,
};
use serde_json::Value;

use super::keys::Keys;
use super::known::Section;
use super::modules;
use crate::support::home;

/// Whether a key means something to a kind of data set.
type Concerns = fn(DatasetKind) -> bool;

/// Keys that not all kinds read.
const OF_SOME: [(&str, Concerns); 19] = [
    ("field", has_document),
    ("field_instruction", DatasetKind::has_instruction),
    ("field_input", DatasetKind::has_input),
    ("field_output", DatasetKind::has_instruction),
    ("format", is_instruct),
    ("no_input_format", is_instruct),
    ("field_messages", DatasetKind::has_messages),
    ("message_property_mappings", has_properties),
    ("message_field_training", has_properties),
    ("roles", has_properties),
    ("roles_to_train", DatasetKind::has_turns),
    ("train_on_eos", DatasetKind::has_turns),
    ("eot_tokens", DatasetKind::has_turns),
    ("drop_system_message", DatasetKind::has_turns),
    ("mask_history", DatasetKind::has_turns),
    ("chat_template", DatasetKind::has_turns),
    ("chat_template_kwargs", DatasetKind::has_turns),
    ("train_on_inputs", has_prompt),
    ("excess_length_strategy", has_examples),
];

fn has_document(kind: DatasetKind) -> bool {
    matches!(kind, DatasetKind::Text | DatasetKind::Completion)
}

fn is_instruct(kind: DatasetKind) -> bool {
    kind == DatasetKind::Instruct
}

fn has_properties(kind: DatasetKind) -> bool {
    kind.has_messages() || kind == DatasetKind::PromptCompletion
}

fn has_prompt(kind: DatasetKind) -> bool {
    !has_document(kind)
}

fn has_examples(kind: DatasetKind) -> bool {
    kind != DatasetKind::Text
}

/// The entries of `datasets`, at least one.
pub(super) fn read(keys: &Keys) -> anyhow::Result<Vec<DatasetSource>> {
    entries(keys, "datasets")
}

/// The data sets under a key, at least one.
pub(super) fn entries(keys: &Keys, name: &str) -> anyhow::Result<Vec<DatasetSource>> {
    let entries = keys.maps(name, Section::Dataset)?;
    if entries.is_empty() {
        bail!(
            "{}: `{name}` is empty; name at least one file",
            keys.place(name)
        );
    }
    let sources = entries
        .iter()
        .map(dataset)
        .collect::<anyhow::Result<Vec<_>>>()?;
    if sources.len() > 1 && sources.iter().any(is_grouped) {
        bail!(
            "{}: a data set of type `tokens` is taken as it is, so it must be the only one",
            keys.place(name)
        );
    }
    Ok(sources)
}

/// Whether a data set brings its own order and its own batches.
pub(super) fn is_grouped(source: &DatasetSource) -> bool {
    source.kind == DatasetKind::Tokens && !source.has_rows()
}

fn dataset(keys: &Keys) -> anyhow::Result<DatasetSource> {
    keys.check()?;
    let path = keys.path("path")?;
    let kind = keys.word("type", &DatasetKind::ALL)?;
    let mut source = DatasetSource::new(path, kind);
    check_keys(keys, &source)?;
    let names = [
        ("field", &mut source.field),
        ("field_instruction", &mut source.field_instruction),
        ("field_input", &mut source.field_input),
        ("field_output", &mut source.field_output),
        ("field_messages", &mut source.field_messages),
    ];
    for (key, name) in names {
        if let Some(given) = keys.text_if(key)? {
            *name = given;
        }
    }
    source.format = keys.text_if("format")?;
    source.no_input_format = keys.text_if("no_input_format")?;
    source.ignore_fields = keys.texts_if("ignore_fields")?.unwrap_or_default();
    source.columns = keys.texts_if("columns")?.unwrap_or_default();
    source.max_samples = keys.whole_if("max_samples")?;
    if let Some(split) = keys.text_if("split")? {
        let split = split.parse().map_err(|why| {
            anyhow!(
                "{}: `split` of {}: {why}",
                keys.place("split"),
                source.path.display()
            )
        })?;
        source.split = Some(split);
    }
    source.weight = keys.exact_if("weight")?.filter(|weight| *weight < 1.0);
    source.shard = shard(keys)?;
    source.hub = HubChoice {
        name: keys.text_if("name")?,
        revision: keys.text_if("revision")?.filter(|_| keys.has("revision")),
        data_files: keys.texts_if("data_files")?.unwrap_or_default(),
    };
    source.train_on_inputs = keys.flag("train_on_inputs")?;
    let strategies = [
        ExcessLength::Truncate,
        ExcessLength::Drop,
        ExcessLength::Split,
        ExcessLength::Error,
        ExcessLength::ShortenTurns,
    ];
    if let Some(strategy) = keys.word_if("excess_length_strategy", &strategies)? {
        source.excess_length = strategy;
    }
    read_turns(keys, &mut source)?;
    check_fields(keys, &source)?;
    Ok(source)
}

/// The part of the rows that is taken.
fn shard(keys: &Keys) -> anyhow::Result<Option<Shard>> {
    let of = keys.whole("shards")?;
    if !keys.has("shards") {
        return match keys.has("shards_idx") {
            true => Err(keys.idle("shards_idx", "without `shards`")),
            false => Ok(None),
        };
    }
    if keys.has("weight") {
        return Err(keys.idle("weight", "beside `shards`"));
    }
    match keys.whole("shards_idx")? {
        index if index < of => Ok(Some(Shard { of, index }).filter(|shard| shard.of > 1)),
        _ => Err(keys.bad("shards_idx", format!("a whole number below {of} (shards)"))),
    }
}

/// How so many data sets alternate; `None` where they are joined.
pub(super) fn mix(keys: &Keys, count: usize) -> anyhow::Result<Option<Mix>> {
    let ends = [
        None,
        Some(MixEnd::FirstExhausted),
        Some(MixEnd::AllExhausted),
    ];
    let end = keys.word("mix_strategy", &ends)?;
    let shares = keys.value_if("interleave_probs", modules::shares)?;
    let Some(end) = end else {
        return match shares {
            Some(_) => Err(keys.idle("interleave_probs", "where data sets are joined")),
            None => Ok(None),
        };
    };
    if count < 2 {
        return Err(keys.idle("mix_strategy", "on one data set"));
    }
    let probabilities = shares.unwrap_or_default();
    if !probabilities.is_empty() && probabilities.len() != count {
        let allowed = format!("a list of {count} numbers, one for each data set");
        return Err(keys.bad("interleave_probs", allowed));
    }
    Ok(Some(Mix { end, probabilities }))
}

/// The keys on turns of conversations.
fn read_turns(keys: &Keys, source: &mut DatasetSource) -> anyhow::Result<()> {
    source.field_training = keys.text_if("message_field_training")?;
    for (property, name) in keys.mapping("message_property_mappings")? {
        let Value::String(name) = name else {
            return Err(keys.bad("message_property_mappings", "a mapping of names to names"));
        };
        source.message_properties.insert(property, name);
    }
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for (role, names) in keys.mapping("roles")? {
        let names = match names {
            Value::Array(names) => names,
            one => vec![one],
        };
        for name in names {
            let Value::String(name) = name else {
                return Err(keys.bad("roles", "a mapping of roles to lists of names"));
            };
            if let Some(other) = named.insert(name.clone(), role.clone()) {
                bail!(
                    "{}: `roles` has `{name}` both under `{other}` and under `{role}`",
                    keys.place("roles")
                );
            }
            source.roles.insert(name, role.clone());
        }
    }
    if let Some(roles) = keys.texts_if("roles_to_train")? {
        if let Some(role) = roles.iter().find(|role| !knows_role(source, role)) {
            bail!(
                "{}: `roles_to_train` has `{role}`, which is no role; known are assistant, user, \
                 system, tool, developer, and those of `roles`",
                keys.place("roles_to_train")
            );
        }
        source.roles_to_train = roles;
    }
    let ends = [
        TrainedEnds::Turn,
        TrainedEnds::All,
        TrainedEnds::Last,
        TrainedEnds::None,
    ];
    source.train_on_eos = keys.word("train_on_eos", &ends)?;
    source.eot_tokens = keys.texts_if("eot_tokens")?.unwrap_or_default();
    source.drop_system_message = keys.flag("drop_system_message")?;
    source.mask_history = keys.flag("mask_history")?;
    source.chat_template = template(keys)?;
    source.template_variables = keys.mapping("chat_template_kwargs")?;
    Ok(())
}

fn knows_role(source: &DatasetSource, role: &str) -> bool {
    let mut roles = source.roles.iter();
    roles.any(|(name, canonical)| name == role || canonical == role)
}

/// The text of a chat template in place of the model's.
fn template(keys: &Keys) -> anyhow::Result<Option<String>> {
    let Some(given) = keys.text_if("chat_template")? else {
        return Ok(None);
    };
    if given == "tokenizer_default" {
        return Ok(None);
    }
    if given.contains("{{") || given.contains("{%") {
        return Ok(Some(given));
    }
    if let Some(named) = concord_recipe::named_template(&given) {
        return Ok(Some(named));
    }
    let path = home::expand(&given)?;
    if !Path::new(&path).is_file() {
        return Err(keys.bad(
            "chat_template",
            format!(
                "tokenizer_default, the path of a .jinja file, the text of a template, or one of \
                 the names {}",
                concord_recipe::TEMPLATE_NAMES.join(", ")
            ),
        ));
    }
    let text = std::fs::read_to_string(&path);
    text.map(Some)
        .with_context(|| format!("{}: `chat_template`: {path}", keys.place("chat_template")))
}

/// Refuses keys that the kind does not read.
fn check_keys(keys: &Keys, source: &DatasetSource) -> anyhow::Result<()> {
    for (key, concerns) in OF_SOME {
        if keys.has(key) && !concerns(source.kind) {
            return Err(keys.idle(key, &format!("with `type: {}`", source.kind.name())));
        }
    }
    for key in ["field", "ignore_fields", "columns", "max_samples"] {
        if keys.has(key) && !source.has_rows() {
            return Err(keys.idle(
                key,
                "on a file without rows (.jsonl, .json, .csv, .parquet)",
            ));
        }
    }
    let of_rows = [
        "train_on_inputs",
        "excess_length_strategy",
        "weight",
        "shards",
    ];
    match of_rows.into_iter().find(|key| keys.has(key)) {
        Some(key) if is_grouped(source) => {
            Err(keys.idle(key, "on a file of tokens, which is taken as it is"))
        }
        _ => Ok(()),
    }
}

/// Refuses fields that are named twice, and those that are read and ignored.
fn check_fields(keys: &Keys, source: &DatasetSource) -> anyhow::Result<()> {
    let used = source.fields();
    let twice = (1..used.len()).find(|index| used[..*index].contains(&used[*index]));
    if let Some(index) = twice {
        bail!(
            "{}: the field `{}` is named twice; the instruction, the input and the output are \
             fields of their own",
            keys.place("path"),
            used[index]
        );
    }
    let is_read = |name: &&String| used.contains(&name.as_str());
    let kept = &source.columns;
    if !kept.is_empty() && !kept.iter().any(|name| is_read(&name)) {
        bail!(
            "{}: `columns` has none of the fields that are read: {}",
            keys.place("columns"),
            used.join(", ")
        );
    }
    match source.ignore_fields.iter().find(is_read) {
        Some(name) => bail!(
            "{}: `ignore_fields` has `{name}`, which is read; take it off the list",
            keys.place("ignore_fields")
        ),
        None => Ok(()),
    }
}

/// `shuffle`, which is forbidden for a file of tokens and true by default for others.
pub(super) fn shuffle(keys: &Keys, datasets: &[DatasetSource]) -> anyhow::Result<bool> {
    let as_given = datasets.iter().any(is_grouped);
    match (keys.flag_if("shuffle")?, as_given) {
        (Some(true), true) => bail!(
            "{}: `shuffle` is true, but a data set of type `tokens` is taken in its own order; \
             remove `shuffle`",
            keys.place("shuffle")
        ),
        (asked, as_given) => Ok(asked.unwrap_or(!as_given)),
    }
}
