//! A public type has a name of its own: a reader of a signature knows which one is meant,
//! without a look at the imports.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{assert_none, source_files};

/// Names that every crate may have, by convention.
const CONVENTIONAL: [&str; 2] = ["Error", "Result"];

/// Names that stand for several types, with why. The list may only shrink.
const SHARED: [(&str, &str); 0] = [];

/// The type that a line defines for others: `pub struct Name<T> {`.
fn defined(line: &str) -> Option<&str> {
    let text = line.trim_start();
    let rest = text
        .strip_prefix("pub ")
        .or_else(|| text.strip_prefix("pub(crate) "))?;
    let (kind, rest) = rest.trim_start_matches("unsafe ").split_once(' ')?;
    if !["struct", "enum", "trait", "type", "union"].contains(&kind) {
        return None;
    }
    rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .next()
}

#[test]
fn a_public_name_stands_for_one_type() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in source_files("rs") {
        let name = file.name();
        let is_source = name.starts_with("src/") || name.contains("/src/");
        // The parts of the simulator have the names of what they stand in for.
        let is_ours = !["benches/", "simulator/"]
            .iter()
            .any(|part| name.starts_with(part))
            && !name.contains("tests");
        if !(is_source && is_ours) {
            continue;
        }
        for (_, line) in file.lines() {
            if let Some(defined) = defined(line) {
                places
                    .entry(defined.to_string())
                    .or_default()
                    .insert(name.clone());
            }
        }
    }
    let mut broken = Vec::new();
    for (name, files) in &places {
        let is_shared = SHARED.iter().any(|(shared, _)| shared == name);
        let is_free = is_shared || CONVENTIONAL.contains(&name.as_str());
        if files.len() > 1 && !is_free {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            broken.push(format!("{name}: {}", files.join(" ")));
        }
    }
    for (name, _) in SHARED {
        if places.get(name).is_none_or(|files| files.len() < 2) {
            broken.push(format!(
                "{name}: stands for one type now, take it off the list"
            ));
        }
    }
    assert_none(
        &broken,
        "a public name stands for one type: call it what it is",
    );
}
