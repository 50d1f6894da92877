//! The files that ARCHITECTURE.md, CONTRIBUTING.md and two pages of `docs` name: each is there.

use std::collections::BTreeSet;

use crate::sources::{assert_none, root};

/// Documents whose paths lead to files, from the root of the repository.
const DOCUMENTS: [&str; 4] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/design.md",
    "docs/failures.md",
];

/// The ways of data through the code: headings of ARCHITECTURE.md, each above a list of files.
const WAYS: [&str; 4] = [
    "## The way of a microbatch",
    "## The way of a chat request",
    "## The way of a claim",
    "## The way of a product",
];

/// Marks a line of a way where data comes back to a file that stands above.
const AGAIN: &str = "(again)";

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect("the document can be read")
}

/// Paths between backticks that begin with a folder of the repository, but for patterns.
fn paths(text: &str) -> Vec<&str> {
    let spans = text.split('`').skip(1).step_by(2);
    let is_path = |span: &&str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        let first = span.split_once('/').map(|(first, _)| first);
        let is_ours =
            |first: &str| !first.is_empty() && first != "target" && root().join(first).is_dir();
        span.chars().all(letters) && !span.contains("NAME") && first.is_some_and(is_ours)
    };
    spans.filter(is_path).collect()
}

#[test]
fn every_file_that_is_named_exists() {
    let mut broken = Vec::new();
    for name in DOCUMENTS {
        let text = document(name);
        // Fenced blocks hold pictures and commands.
        let outside: String = text.split("```").step_by(2).collect();
        for path in paths(&outside) {
            if !root().join(path).exists() {
                broken.push(format!("{name}: {path}"));
            }
        }
    }
    assert_none(
        &broken,
        "a path leads to a file, from the root of the repository",
    );
}

#[test]
fn the_ways_of_data_pass_each_file_once() {
    let text = document("ARCHITECTURE.md");
    let mut broken = Vec::new();
    for heading in WAYS {
        let Some((_, below)) = text.split_once(heading) else {
            broken.push(format!("ARCHITECTURE.md has no \"{heading}\""));
            continue;
        };
        let section = below.split("\n## ").next().unwrap_or("");
        let is_step = |line: &&str| {
            line.split_once(". `")
                .is_some_and(|(number, _)| number.parse::<u32>().is_ok())
        };
        let mut seen = BTreeSet::new();
        let steps: Vec<&str> = section.lines().filter(is_step).collect();
        if steps.len() < 5 {
            broken.push(format!("{heading}: {} steps", steps.len()));
        }
        for step in steps {
            let path = step.split('`').nth(1).unwrap_or("");
            if !root().join(path).is_file() {
                broken.push(format!("{heading}: {path} is no file"));
            }
            if !seen.insert(path) && !step.contains(AGAIN) {
                broken.push(format!("{heading}: {path} stands twice"));
            }
        }
    }
    assert_none(&broken, "a way of data is a list of files");
}

/// It can be read in one sitting.
#[test]
fn the_architecture_is_short() {
    let lines = document("ARCHITECTURE.md").lines().count();
    assert!(lines <= 260, "ARCHITECTURE.md has {lines} lines");
}

/// A reader of the README can repeat what CI runs last.
#[test]
fn ci_ends_with_the_command_of_the_readme() {
    let ci = document(".ci/run");
    let last = ci.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.expect("it has lines");
    let readme = document("README.md");
    let block = format!("```sh\n{last}\n```");
    assert!(
        readme.contains(&block),
        "README.md has no block with `{last}` alone"
    );
}
