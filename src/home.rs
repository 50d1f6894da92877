//! Paths as people write them where no shell has read them first: in a job file, and behind `=` on
//! a command line.

use std::path::Path;

use anyhow::bail;

/// A path with `~` in front made whole. A shell would make more of some paths; those are refused,
/// since a folder of that name is not what was meant.
///
/// # Errors
/// Naming what is not expanded: another user's home, a variable, an address of the net.
pub fn expand(path: &str) -> anyhow::Result<String> {
    expand_with(path, std::env::var("HOME").ok().as_deref())
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
    // A file of that very name is meant.
    if Path::new(path).exists() {
        return Ok(path.to_string());
    }
    bail!("{path}: {meant}")
}

/// What a shell would take for a variable: `${...}`, or a `$` with a name behind it, in capitals
/// or at the beginning of a part.
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
        let expand = |path| expand_with(path, Some("/home/ann/")).unwrap();
        assert_eq!(expand("~"), "/home/ann");
        assert_eq!(expand("~/"), "/home/ann/");
        assert_eq!(expand("~/out/a b"), "/home/ann/out/a b");
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
            let error = expand_with(path, Some("/home/ann"))
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
    fn a_file_of_that_very_name_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("$HOME");
        std::fs::write(&path, "").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(expand_with(path, None).unwrap(), path);
    }
}
