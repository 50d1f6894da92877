//! `concord train FILE --explain`: the job as Concord reads it, with the source of each value.

use concord_recipe::{Place, ValueSource};
use serde_json::{Value, json};
use serde_yaml_ng::Value as Yaml;

use super::given::GivenJob;
use super::keys::shown;
use super::known::{Absent, KEYS, Section};
use crate::support::output::Output;
use crate::support::table::table;

/// A key, its value as text, and where that comes from.
type ShownValue = (String, String, Option<ValueSource>);

/// Prints each key of the job with its value and where that comes from, then what has no effect.
pub fn print(given: &GivenJob, output: &Output) {
    let tool = given.resolved.tool;
    let head = json!({
        "event": "job_file", "file": given.file(), "tool": tool.word(),
        "because": given.resolved.because, "notes": given.resolved.notes,
    });
    let words = format!(
        "{} is a job file of {} (by {}; --tool says otherwise)\n",
        given.file(),
        tool.name(),
        given.resolved.because
    );
    output.result(&words, &head);
    let mut rows = Vec::new();
    for (path, value, source) in values(given) {
        let object = json!({
            "event": "value", "key": path, "value": value, "from": from(&source),
            "their_key": source.as_ref().map(|source| &source.key),
        });
        output.result("", &object);
        rows.push([path, value, from(&source)]);
    }
    if !output.is_json() {
        output.result(&table(["key", "value", "from"], &rows), &Value::Null);
    }
    idle(given, output);
    for note in &given.resolved.notes {
        output.result(
            &format!("\nnote: {note}"),
            &json!({ "event": "note", "note": note }),
        );
    }
}

/// Each key of the job with its value as text.
pub fn settings(given: &GivenJob) -> Vec<(String, String)> {
    let values = values(given).into_iter();
    values.map(|(path, value, _)| (path, value)).collect()
}

/// A value of [`settings`] in one form for all ways to write it: a text without quotes, a number
/// without needless zeros.
pub fn plain(value: &str) -> String {
    let bare = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let bare = bare.unwrap_or(value);
    let is_number = bare.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match bare.parse::<f64>() {
        Ok(number) if is_number && number.is_finite() && number.abs() < 1e15 => number.to_string(),
        _ => bare.to_string(),
    }
}

/// Whether a job has this value of a key, in its [`plain`] form, where its file says nothing.
pub fn is_usual(name: &str, value: &str) -> bool {
    let found = KEYS
        .iter()
        .find(|key| key.section == Section::Job && key.name == name);
    found.is_some_and(|key| match key.absent {
        Absent::Is(usual) => plain(usual) == value,
        Absent::Means(words) => value == format!("({words})"),
        Absent::Refused => false,
    })
}

fn idle(given: &GivenJob, output: &Output) {
    if !given.resolved.idle.is_empty() {
        output.result("\naccepted, and without effect here:", &Value::Null);
    }
    for idle in &given.resolved.idle {
        let object = json!({
            "event": "no_effect", "key": idle.key, "line": line(idle.place), "why": idle.why,
        });
        let place = words(idle.place);
        output.result(&format!("  {place}: `{}`: {}", idle.key, idle.why), &object);
    }
}

/// Every key with its value as text and its source; keys that are absent have Concord's default.
fn values(given: &GivenJob) -> Vec<ShownValue> {
    let mut values = Vec::new();
    for key in KEYS.iter().filter(|key| key.section == Section::Job) {
        let name = key.name.to_string();
        if let Some(by_rule) = timing(given, key.name) {
            values.extend(by_rule);
            continue;
        }
        match (given.map().get(key.name), key.absent) {
            (Some(Yaml::Sequence(items)), _) if name.ends_with("datasets") => {
                values.extend(of_datasets(given, &name, items));
            }
            (Some(value), _) => values.push((name.clone(), shown(value), given.source(&name))),
            (None, Absent::Is(default)) => values.push((name, default.to_string(), None)),
            (None, Absent::Means(words)) => values.push((name, format!("({words})"), None)),
            (None, Absent::Refused) => values.push((name, "(missing)".to_string(), None)),
        }
    }
    values
}

/// The keys of each of the data sets under `name`.
fn of_datasets(given: &GivenJob, name: &str, items: &[Yaml]) -> Vec<ShownValue> {
    let mut values = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("{name}[{index}]");
        for (inner, value) in item.as_mapping().into_iter().flatten() {
            let path = format!("{at}.{}", shown(inner).replace('"', ""));
            let sources = [&*path, &at, name].into_iter();
            let source = { sources }.find_map(|path| given.source(path));
            values.push((path, shown(value), source));
        }
    }
    values
}

/// A key that says how long a job of another tool is, by the rules of that tool: its value, if any,
/// and where it comes from. `None` for other keys and jobs.
fn timing(given: &GivenJob, name: &str) -> Option<Option<ShownValue>> {
    let rules = given.resolved.rules?;
    let value = match name {
        "max_steps" => rules.length.max_steps.map(|steps| steps.to_string()),
        "num_epochs" => rules.length.num_epochs.map(|epochs| epochs.to_string()),
        "warmup_steps" => Some(rules.warmup.to_string()),
        "save_steps" => Some(rules.saves.to_string()),
        "eval_steps" => rules.evaluations.map(|times| times.to_string()),
        "warmup_ratio" | "evals_per_epoch" | "save_strategy" | "saves_per_epoch" => None,
        _ => return None,
    };
    let source = ValueSource {
        place: None,
        key: name.to_string(),
        how: format!("the rules of {}", given.resolved.tool.name()),
    };
    Some(value.map(|value| (name.to_string(), value, Some(source))))
}

fn from(source: &Option<ValueSource>) -> String {
    let Some(source) = source else {
        return "Concord's default".to_string();
    };
    let Some(place) = source.place else {
        return format!("{}, `{}`", source.how, source.key);
    };
    let how = match source.how.as_str() {
        "" => String::new(),
        how => format!(": {how}"),
    };
    format!("{}, `{}`{how}", words(place), source.key)
}

fn words(place: Place) -> String {
    match place {
        Place::Line(line) => format!("line {line}"),
        Place::Set => "--set".to_string(),
        Place::File => "the file".to_string(),
    }
}

fn line(place: Place) -> Option<usize> {
    match place {
        Place::Line(line) => Some(line),
        _ => None,
    }
}

/// Tells of another tool's file whose it is, and what of it has no effect: a line on stderr.
pub fn tell(given: &GivenJob, output: &Output) {
    if given.is_own() || output.is_json() {
        return;
    }
    let idle = given.resolved.idle.iter().map(|idle| idle.key.as_str());
    let idle: Vec<&str> = idle.collect();
    let what = match idle.is_empty() {
        true => String::new(),
        false => format!("; without effect here: {}", idle.join(", ")),
    };
    eprintln!(
        "{} is read as {}'s, by {}{what} (--explain has all)",
        given.file(),
        given.resolved.tool.name(),
        given.resolved.because
    );
}
