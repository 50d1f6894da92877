//! Paths with `*` and `?` in them.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Whether a path has a pattern in it.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?'])
}

/// The files that a pattern names, in order. `*` stands for any characters of one name, `?` for
/// one; a name that begins with a dot is found only where the pattern has the dot.
///
/// # Errors
/// Half a sentence, for more than `most` files, for `**`, and for folders that cannot be listed.
pub(crate) fn matches(path: &Path, most: usize) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for component in path.components() {
        let name = component.as_os_str().to_string_lossy().into_owned();
        let is_name = matches!(component, Component::Normal(_));
        if !is_name || !is_pattern(Path::new(&name)) {
            for path in &mut found {
                path.push(component);
            }
            continue;
        }
        if name.contains("**") {
            return Err(
                "a pattern has `*` for a part of one name; name a folder to read all that \
                        is in it"
                    .to_string(),
            );
        }
        let mut next = Vec::new();
        for folder in found.iter().filter(|folder| is_folder(folder)) {
            next.extend(of_folder(folder, &name)?);
        }
        if next.len() > most {
            return Err(format!("the pattern names more than {most} files"));
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

fn is_folder(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.is_dir()
}

fn of_folder(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let listed = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let fail = |error: std::io::Error| format!("cannot list {}: {error}", listed.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(listed).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let text = name.to_string_lossy();
        let is_hidden = text.starts_with('.') && !pattern.starts_with('.');
        let (letters, wanted): (Vec<char>, Vec<char>) =
            (text.chars().collect(), pattern.chars().collect());
        if !is_hidden && fits(&letters, &wanted) {
            found.push(folder.join(&name));
        }
    }
    Ok(found)
}

/// Whether a name fits a pattern. Goes back to the last `*` alone, so it takes time of the product
/// of the lengths at most.
fn fits(name: &[char], pattern: &[char]) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(next) {
            Some('*') => {
                star = Some((at, next));
                next += 1;
            }
            Some(letter) if *letter == '?' || *letter == name[at] => {
                (at, next) = (at + 1, next + 1)
            }
            _ => match star {
                Some((begun, place)) => {
                    star = Some((begun + 1, place));
                    (at, next) = (begun + 1, place + 1);
                }
                None => return false,
            },
        }
    }
    pattern[next..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        let cases = [
            ("a.jsonl", "*.jsonl", true),
            ("a.jsonl", "?.jsonl", true),
            ("ab.jsonl", "?.jsonl", false),
            ("train-00000-of-00002.parquet", "train-*-of-*.parquet", true),
            ("aab", "*ab", true),
            ("aabaab", "*ab*ab", true),
            ("abc", "*b", false),
            ("", "*", true),
            ("a", "", false),
        ];
        for (name, pattern, fit) in cases {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            assert_eq!(fits(&chars(name), &chars(pattern)), fit, "{name} {pattern}");
        }
    }
}
