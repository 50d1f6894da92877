//! The glossary at the end of ARCHITECTURE.md: its words are used, and the nouns of the protocol
//! are in it.

use std::collections::BTreeSet;

use crate::sources::{assert_none, root, source_files};

const HEADING: &str = "## Words";

/// Nouns that mean in `proto` what they mean everywhere. The list may only shrink.
const PLAIN: [&str; 24] = [
    "address", "control", "entry", "error", "event", "header", "id", "info", "input", "kind",
    "model", "options", "order", "part", "phase", "request", "response", "result", "role",
    "status", "summary", "tensor", "update", "view",
];

/// The words in the first column of the glossary, in small letters and in order.
fn words_of_the_glossary() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it can be read");
    let (_, below) = text
        .split_once(HEADING)
        .expect("ARCHITECTURE.md has a glossary");
    let rows = below
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| word |"));
    rows.flat_map(|row| row.split('|').nth(1).unwrap_or("").split(','))
        .map(|word| word.trim().replace("**", "").to_lowercase())
        .collect()
}

fn glossary() -> BTreeSet<String> {
    words_of_the_glossary().into_iter().collect()
}

/// The words of a name: `StageClaim` is `stage` and `claim`.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() || words.is_empty() {
            words.push(String::new());
        }
        let last = words.last_mut().expect("one at least");
        last.push(c.to_ascii_lowercase());
    }
    words
}

/// The public types of `proto`.
fn nouns_of_proto() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in source_files("rs") {
        if !file.name().starts_with("proto/src/") {
            continue;
        }
        for (_, line) in file.lines() {
            let rest = ["pub struct ", "pub enum ", "pub trait "]
                .iter()
                .find_map(|start| line.trim_start().strip_prefix(start));
            let name = rest.and_then(|rest| rest.split(|c: char| !c.is_alphanumeric()).next());
            names.extend(name.map(str::to_string));
        }
    }
    names
}

#[test]
fn a_word_of_the_glossary_has_one_meaning() {
    let mut seen = BTreeSet::new();
    let mut twice = words_of_the_glossary();
    twice.retain(|word| !seen.insert(word.clone()));
    assert_none(&twice, "a word has one row of the glossary");
}

#[test]
fn the_nouns_of_the_protocol_are_in_the_glossary() {
    let glossary = glossary();
    let mut plain: BTreeSet<&str> = PLAIN.into_iter().collect();
    let mut broken = Vec::new();
    for name in nouns_of_proto() {
        let words = words(&name);
        let last = words.last().cloned().unwrap_or_default();
        let singular = last.strip_suffix('s').unwrap_or(&last).to_string();
        let (whole, joined) = (words.join(" "), words.concat());
        let is_known = [&whole, &joined, &last, &singular]
            .iter()
            .any(|word| glossary.contains(*word));
        if is_known {
            continue;
        }
        if !(PLAIN.contains(&last.as_str()) || PLAIN.contains(&singular.as_str())) {
            broken.push(format!("{name}: neither \"{whole}\" nor \"{last}\""));
        }
        plain.remove(last.as_str());
        plain.remove(singular.as_str());
    }
    broken.extend(
        plain
            .iter()
            .map(|word| format!("{word}: not needed, take it off the list")),
    );
    assert_none(
        &broken,
        "a public type of proto is named by a word of the glossary",
    );
}

#[test]
fn the_words_of_the_glossary_are_used() {
    let files = source_files("rs");
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut text = String::new();
    for file in files
        .iter()
        .filter(|file| !file.name().starts_with("tests/tidy/"))
    {
        for part in file.text.split(|c: char| !c.is_ascii_alphanumeric()) {
            used.extend(words(part));
            used.insert(part.to_ascii_lowercase());
        }
        text.push_str(&file.text.to_lowercase());
    }
    let is_used = |word: &String| {
        let (plural, joined) = (format!("{word}s"), word.replace(' ', ""));
        let is_name = [word, &plural, &joined]
            .into_iter()
            .any(|name| used.contains(name));
        is_name || (word.contains(' ') && text.contains(word))
    };
    let glossary = glossary();
    assert!(glossary.len() > 30, "{} words", glossary.len());
    let unused: Vec<String> = glossary
        .iter()
        .filter(|word| !is_used(word))
        .cloned()
        .collect();
    assert_none(&unused, "a word of the glossary is used in the code");
}
