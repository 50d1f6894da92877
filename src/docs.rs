//! The pages of `docs/` that are made from tables in the code: `docs/command-line.md` from the
//! options of the commands, `docs/job-file.md` from the keys of a job file. With
//! `CONCORD_WRITE_DOCS=1` the tests here write the pages; without it they fail where a page
//! differs.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, CommandFactory};

use crate::Cli;
use crate::support::job_file::help;

/// Columns of a page.
const COLUMNS: usize = 100;

/// Wraps a text to the width of the page. The first line begins with `first`, the others are
/// indented by its length.
fn wrapped(first: &str, text: &str) -> String {
    let mut page = first.to_string();
    let indent = " ".repeat(first.len());
    let mut column = indent.len();
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > indent.len() && column + 1 + len > COLUMNS {
            page += "\n";
            page += &indent;
            column = indent.len();
        } else if column > indent.len() {
            page.push(' ');
            column += 1;
        }
        page += word;
        column += len;
    }
    page
}

/// The text as a sentence, with a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim().chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    let mut sentence: String = first.chain(letters).collect();
    if !sentence.ends_with(['.', ':']) {
        sentence.push('.');
    }
    sentence
}

fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    if std::env::var_os("CONCORD_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        return std::fs::write(&path, page).unwrap();
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == page,
        "docs/{name} is not what the code says: CONCORD_WRITE_DOCS=1 cargo test writes it again"
    );
}

#[test]
fn the_job_file() {
    let mut page = "# The job file

Every key of a job file (YAML), as `concord train --keys` prints them. A key that is not here is
refused by name. This page is made of the table that the parser reads by
(`src/support/job_file/known.rs`); a test holds it to that.
"
    .to_string();
    for (section, keys) in help::sections() {
        writeln!(page, "\n## {section}").unwrap();
        for [name, meaning, allowed, absent] in keys {
            writeln!(page, "\n### `{name}`\n").unwrap();
            writeln!(page, "{}\n", wrapped("", &sentence(&meaning))).unwrap();
            writeln!(
                page,
                "{}",
                wrapped("* ", &sentence(&format!("may be {allowed}")))
            )
            .unwrap();
            writeln!(page, "{}", wrapped("* ", &sentence(&absent))).unwrap();
        }
    }
    check("job-file.md", &page);
}

/// Only with the demo and the simulator, without which the page would lack a command.
#[cfg(all(feature = "demo", feature = "simulator"))]
#[test]
fn the_command_line() {
    let mut page = "# The command line

Every command and option, as `--help` prints them. This page is made of the definitions in
`src/commands`; a test holds it to them. Sizes take K, M, G or T (of 1,024). A `~` at the beginning
of a path is the home directory, also behind `=`, where shells leave it as it is.

## Options of every command

"
    .to_string();
    let mut command = Cli::command();
    command.build();
    let mut global = Vec::new();
    for arg in command.get_arguments().filter(|arg| is_told(arg, &[])) {
        page += &option(arg);
        global.push(arg.get_id().to_string());
    }
    for command in command.get_subcommands() {
        page += &section(command, &global, 2);
    }
    check("command-line.md", &page);
}

/// Whether an option belongs on the page. `above` are options that a parent command has listed.
fn is_told(arg: &Arg, above: &[String]) -> bool {
    let id = arg.get_id().as_str();
    !arg.is_hide_set() && !["help", "version"].contains(&id) && !above.iter().any(|one| one == id)
}

/// The section of a command and its subcommands.
fn section(command: &clap::Command, above: &[String], level: usize) -> String {
    if command.is_hide_set() || command.get_name() == "help" {
        return String::new();
    }
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut page = format!("\n{} `{name}`\n\n", "#".repeat(level));
    let about = command.get_long_about().or(command.get_about());
    let about = about.map_or(String::new(), ToString::to_string);
    page += &wrapped("", &sentence(&about));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    write!(page, "\n\n```\n{usage}\n```\n\n").unwrap();
    let mut told = above.to_vec();
    for arg in command.get_arguments().filter(|arg| is_told(arg, above)) {
        page += &option(arg);
        told.push(arg.get_id().to_string());
    }
    if let Some(after) = command.get_after_help() {
        let after = after.to_string();
        for line in after.lines() {
            let columns = line.chars().count();
            assert!(
                columns <= COLUMNS,
                "{columns} columns in the help of {name}: {line}"
            );
        }
        write!(page, "\n```\n{}\n```\n", after.trim_end()).unwrap();
    }
    for below in command.get_subcommands() {
        page += &section(below, &told, level + 1);
    }
    page
}

/// An option as a list item.
fn option(arg: &Arg) -> String {
    let takes_value = arg.get_action().takes_values();
    let values = arg.get_value_names().unwrap_or_default();
    let values: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
    let name = match arg.get_long() {
        Some(long) if arg.is_require_equals_set() => format!("--{long}[={}]", values.join(" ")),
        Some(long) if takes_value => format!("--{long} {}", values.join(" ")),
        Some(long) => format!("--{long}"),
        None => values.join(" "),
    };
    let help = arg.get_long_help().or(arg.get_help());
    let mut text = format!(
        "`{name}`: {}",
        sentence(&help.map_or(String::new(), ToString::to_string))
    );
    let defaults = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy());
    let defaults: Vec<_> = defaults.collect();
    if takes_value && !defaults.is_empty() {
        write!(text, " Default: `{}`.", defaults.join(",")).unwrap();
    }
    let possible = arg.get_possible_values();
    if takes_value && !possible.is_empty() {
        let names: Vec<&str> = possible.iter().map(|value| value.get_name()).collect();
        write!(text, " One of `{}`.", names.join("`, `")).unwrap();
    }
    wrapped("* ", &text) + "\n"
}
