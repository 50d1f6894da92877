//! The key file.

use std::collections::BTreeSet;
use std::path::Path;

use concord_proto::Digest;

use crate::error::GatewayError;

/// Most keys in a file.
const KEYS_MAX: usize = 10_000;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyLine {
    pub name: String,
    pub digest: Digest,
    pub requests_per_minute: Option<u32>,
    pub concurrent: Option<u32>,
    pub tokens_per_day: Option<u64>,
    /// May load and unload adapters.
    pub admin: bool,
}

/// The lines of the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<KeyLine>, GatewayError> {
    let bytes = std::fs::read(path).map_err(|error| GatewayError::Read {
        path: path.to_path_buf(),
        error,
    })?;
    lines(path, &bytes)
}

/// The lines of a file at `path` with this content. Empty lines and those that begin with `#` are
/// skipped.
pub(crate) fn lines(path: &Path, bytes: &[u8]) -> Result<Vec<KeyLine>, GatewayError> {
    let text = std::str::from_utf8(bytes).map_err(|error| GatewayError::Read {
        path: path.to_path_buf(),
        error: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    })?;
    let fail = |line: usize, reason: String| GatewayError::Keys {
        path: path.to_path_buf(),
        line,
        reason,
    };
    let mut known = BTreeSet::new();
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = parse(line).map_err(|reason| fail(index + 1, reason))?;
        if !known.insert(parsed.digest) {
            return Err(fail(index + 1, "its key has a line already".to_string()));
        }
        if lines.len() == KEYS_MAX {
            return Err(fail(index + 1, format!("more than {KEYS_MAX} keys")));
        }
        lines.push(parsed);
    }
    // An empty file is refused rather than read as "no key is needed".
    match lines.is_empty() {
        true => Err(fail(
            text.lines().count(),
            "the file has no key".to_string(),
        )),
        false => Ok(lines),
    }
}

fn parse(line: &str) -> Result<KeyLine, String> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default().to_string();
    let digest = words.next().ok_or("the digest of the key is missing")?;
    if digest.starts_with(super::PREFIX) {
        return Err("it holds a key, where the digest of one belongs".to_string());
    }
    let mut parsed = KeyLine {
        name,
        digest: digest.parse()?,
        requests_per_minute: None,
        concurrent: None,
        tokens_per_day: None,
        admin: false,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "admin" => parsed.admin = true,
            Some(("rpm", value)) => parsed.requests_per_minute = Some(number(word, value)?),
            Some(("concurrent", value)) => parsed.concurrent = Some(number(word, value)?),
            Some(("tokens_per_day", value)) => parsed.tokens_per_day = Some(number(word, value)?),
            _ => return Err(format!("'{word}' says nothing")),
        }
    }
    Ok(parsed)
}

fn number<T: std::str::FromStr + Default + PartialEq>(
    word: &str,
    value: &str,
) -> Result<T, String> {
    let number: Option<T> = value.parse().ok().filter(|number| *number != T::default());
    number.ok_or_else(|| format!("'{word}' needs a whole number above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::new_key;

    #[test]
    fn reads_what_new_key_writes_and_refuses_the_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let (_, line) = new_key("ann").expect("random numbers");
        let text = format!("# people\n\n{line} rpm=60 concurrent=2 tokens_per_day=9 admin\n");
        std::fs::write(&path, text).expect("written");
        let lines = read(&path).expect("a right file");
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].name, "ann");
        assert_eq!(lines[0].requests_per_minute, Some(60));
        assert_eq!(lines[0].concurrent, Some(2));
        assert_eq!(lines[0].tokens_per_day, Some(9));
        assert!(lines[0].admin);

        let (key, _) = new_key("bob").expect("random numbers");
        let wrong = [
            (String::new(), "no key"),
            ("ann".to_string(), "missing"),
            (format!("ann {key}"), "where the digest"),
            ("ann 1234".to_string(), "64 hexadecimal"),
            (format!("{line} rpm=x"), "whole number"),
            (format!("{line} rpm=0"), "whole number"),
            (format!("{line} root"), "says nothing"),
            (format!("{line}\n{line}"), "already"),
        ];
        for (text, reason) in wrong {
            std::fs::write(&path, &text).expect("written");
            let error = read(&path).expect_err(&text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains(&key), "{error}");
        }
    }
}
