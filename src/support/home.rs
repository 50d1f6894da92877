//! Expands `~` in paths that no shell has expanded: in a job file, and after `=` on a command line.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, bail};

/// A path with a leading `~` expanded. Paths that a shell would expand further are refused, since
/// the user does not mean a folder with that literal name.
///
/// # Errors
/// Naming what is not expanded: another user's home, a variable, a URL.
pub fn expand(path: &str) -> anyhow::Result<String> {
    expand_with(path, std::env::var("HOME").ok().as_deref())
}

/// The arguments of a command line, with `~` expanded in the values of those options of `command`
/// that are paths: shells do not expand `--model=~/x` and `--adapter poet=~/x`.
///
/// # Errors
/// Naming the option whose value is another user's home.
pub fn arguments(
    command: &clap::Command,
    given: impl IntoIterator<Item = OsString>,
) -> anyhow::Result<Vec<OsString>> {
    let mut line = Line {
        command,
        global: command,
        awaits: None,
        is_over: false,
    };
    given.into_iter().map(|given| line.read(given)).collect()
}

/// The state of reading a command line.
struct Line<'a> {
    /// The command whose options are read.
    command: &'a clap::Command,
    /// The top command, whose options all commands have.
    global: &'a clap::Command,
    /// The option whose value is the next argument, and whether that is a path.
    awaits: Option<(String, bool)>,
    /// Whether `--` has been read.
    is_over: bool,
}

impl Line<'_> {
    fn read(&mut self, given: OsString) -> anyhow::Result<OsString> {
        let awaits = self.awaits.take();
        let Some(text) = given.to_str().filter(|_| !self.is_over) else {
            return Ok(given);
        };
        if let Some((option, is_path)) = awaits {
            return match is_path {
                true => whole(&option, "", text),
                false => Ok(given),
            };
        }
        if let Some((option, value)) = text.split_once('=')
            && self.kind(option) == Some(true)
        {
            return whole(option, &text[..=option.len()], value);
        }
        self.awaits = self.kind(text).map(|is_path| (text.to_string(), is_path));
        self.is_over = text == "--";
        if let Some(below) = self.command.find_subcommand(text) {
            self.command = below;
        }
        Ok(given)
    }

    /// For an option that takes a value, whether the value is a path.
    fn kind(&self, text: &str) -> Option<bool> {
        let name = text.strip_prefix("--")?;
        let of = |command: &clap::Command| {
            let mut arguments = command.get_arguments();
            let argument = arguments.find(|argument| argument.get_long() == Some(name))?;
            let names = argument.get_value_names().unwrap_or_default();
            let is_path = |name: &clap::builder::Str| name.contains("DIR") || name.contains("FILE");
            let takes_value = argument.get_action().takes_values();
            takes_value.then(|| names.iter().any(is_path))
        };
        of(self.command).or_else(|| of(self.global))
    }
}

/// An argument that ends with the value of an option, with `~` in the value expanded.
fn whole(option: &str, front: &str, value: &str) -> anyhow::Result<OsString> {
    let start = match value.split_once("=~") {
        Some((name, _)) if !name.contains('/') => name.len() + 1,
        _ => 0,
    };
    let (name, path) = value.split_at(start);
    if !path.starts_with('~') {
        return Ok(format!("{front}{value}").into());
    }
    let path = expand(path).with_context(|| option.to_string())?;
    Ok(format!("{front}{name}{path}").into())
}

fn expand_with(path: &str, home: Option<&str>) -> anyhow::Result<String> {
    if let Some(rest) = path.strip_prefix('~') {
        if !rest.is_empty() && !rest.starts_with('/') {
            let user = rest.split('/').next().unwrap_or(rest);
            bail!("{path}: the home of {user} is not looked up; write the path out");
        }
        return match home {
            Some(home) if home.starts_with('/') => {
                Ok(format!("{}{rest}", home.trim_end_matches('/')))
            }
            _ => bail!("{path}: HOME is not set, so ~ means nothing; write the path out"),
        };
    }
    let meant = match (path.split_once("://"), variable(path)) {
        (Some((scheme, _)), _) => {
            format!("a {scheme}:// address is not a path of this machine; download it first")
        }
        (None, Some(variable)) => {
            format!("variables such as {variable} are not expanded; write the path out")
        }
        (None, None) => return Ok(path.to_string()),
    };
    // There is a file with that literal name.
    if Path::new(path).exists() {
        return Ok(path.to_string());
    }
    bail!("{path}: {meant}")
}

/// What a shell would take for a variable: `${...}`, or a `$` followed by a name that is in
/// capitals or at the beginning of a path component.
fn variable(path: &str) -> Option<&str> {
    path.match_indices('$').find_map(|(start, _)| {
        let name = &path[start + 1..];
        let part_begins = start == 0 || path[..start].ends_with('/');
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let named = match name.chars().next()? {
            '{' => return Some(&path[start..]),
            first => first.is_ascii_uppercase() || (part_begins && first.is_ascii_alphabetic()),
        };
        let end = name.find(|c| !is_name(c)).unwrap_or(name.len());
        named.then_some(&path[start..=start + end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_put_in_and_the_rest_stays() {
        let expand = |path| expand_with(path, Some("/users/ann/")).unwrap();
        assert_eq!(expand("~"), "/users/ann");
        assert_eq!(expand("~/"), "/users/ann/");
        assert_eq!(expand("~/out/a b"), "/users/ann/out/a b");
        for path in [
            "out",
            "./~",
            "a/~/b",
            "a~",
            "/x",
            "owner/name",
            "../x",
            "cost$",
            "a$b",
            "5$",
        ] {
            assert_eq!(expand(path), path);
        }
    }

    #[test]
    fn what_a_shell_would_make_more_of_is_refused() {
        let cases = [
            ("~bob/out", "the home of bob"),
            ("~bob", "the home of bob"),
            ("$HOME/out", "such as $HOME are not"),
            ("out-$USER", "such as $USER are not"),
            ("out/$scratch/a", "such as $scratch are not"),
            ("${HOME}/out", "not expanded"),
            ("out/${USER}", "not expanded"),
            ("s3://bucket/out", "s3:// address"),
            ("file:///tmp/out", "file:// address"),
        ];
        for (path, expected) in cases {
            let error = expand_with(path, Some("/users/ann"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected) && error.contains(path), "{error}");
        }
        for home in [None, Some(""), Some("ann")] {
            let error = expand_with("~/out", home).unwrap_err().to_string();
            assert!(error.contains("HOME is not set"), "{error}");
        }
    }

    #[test]
    fn options_that_are_paths_have_the_home_put_in() {
        let option = |name, value| clap::Arg::new(name).long(name).value_name(value);
        let command = clap::Command::new("a")
            .subcommand(clap::Command::new("b").args([
                option("model", "DIR_OR_HUB_ID"),
                option("adapter", "NAME=DIR"),
                option("prompt", "TEXT"),
            ]))
            .subcommand(clap::Command::new("c").arg(option("model", "NAME")))
            .arg(option("log", "FILTER"));
        let read = |given: &[&str]| {
            let given = given.iter().map(OsString::from);
            arguments(&command, given).map(|read| {
                let text = |read: OsString| read.into_string().unwrap();
                read.into_iter().map(text).collect::<Vec<_>>()
            })
        };
        let home = expand("~").unwrap();
        let cases = [
            (vec!["a", "b", "--model=~/m"], format!("--model={home}/m")),
            (vec!["a", "b", "--model", "~/m"], format!("{home}/m")),
            (
                vec!["a", "b", "--adapter", "poet=~/p"],
                format!("poet={home}/p"),
            ),
            (
                vec!["a", "b", "--adapter=poet=~/p"],
                format!("--adapter=poet={home}/p"),
            ),
        ];
        for (given, expected) in cases {
            let read = read(&given).unwrap();
            assert_eq!(read.last(), Some(&expected), "{given:?}");
            assert_eq!(read.len(), given.len());
        }
        for given in [
            ["a", "b", "--prompt", "~/m"],
            ["a", "b", "--prompt=~/m", "x=~/y"],
            ["a", "b", "--model", "a/x=~/m"],
            // The value of an option is a value, whatever it looks like.
            ["a", "b", "--prompt", "--model=~/m"],
            ["a", "--log", "~", "b"],
            ["a", "--log", "--model", "~/m"],
            // An option of another command, and an argument after `--`.
            ["a", "c", "--model", "~/m"],
            ["a", "b", "--", "--model=~/m"],
        ] {
            assert_eq!(read(&given).unwrap(), given);
        }
        let error = format!("{:#}", read(&["a", "b", "--model=~bob/m"]).unwrap_err());
        assert!(
            error.contains("--model") && error.contains("the home of bob"),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_that_very_name_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("$HOME");
        std::fs::write(&path, "").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(expand_with(path, None).unwrap(), path);
    }
}
