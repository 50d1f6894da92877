//! A job file with a word on each key, for `concord init`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::bail;
use serde_json::json;

use super::columns;
use super::known::{Absent, KEYS, Key, Section};

/// What a new job file is for.
pub struct Sample<'a> {
    pub model: &'a str,
    pub data: &'a str,
    /// The type of the data set.
    pub kind: &'a str,
    /// Tokens of a sequence.
    pub sequence_len: usize,
    pub output_dir: &'a str,
}

/// Keys that a new file sets to something else than their default, and to what.
const SET: [(&str, &str); 7] = [
    ("adapter", "lora"),
    ("lora_r", "16"),
    ("lora_alpha", "32"),
    ("gradient_accumulation_steps", "8"),
    ("num_epochs", "1"),
    ("learning_rate", "2e-4"),
    ("warmup_ratio", "0.03"),
];

/// The type of a data set, by its name and its first row.
///
/// # Errors
/// Where it cannot be read, or its rows are not known.
pub fn kind(path: &Path) -> anyhow::Result<&'static str> {
    let ends = |end: &str| {
        let name = path.to_string_lossy().to_lowercase();
        name.ends_with(end)
    };
    if ends(".txt") || ends(".md") {
        std::fs::File::open(path)?;
        return Ok("text");
    }
    if ends(".safetensors") {
        return Ok("tokens");
    }
    match columns::word(&path.to_string_lossy()) {
        Ok(word) => Ok(word),
        Err(why) => bail!(why),
    }
}

/// The text of a job file. Keys that keep their default are comments.
pub fn text(sample: &Sample) -> String {
    let mut text = "# A fine-tune for `concord train`. Every key: `concord train --keys`; what \
                    is\n# commented out has its default.\n"
        .to_string();
    let quoted = |text: &str| json!(text).to_string();
    for key in KEYS.iter().filter(|key| key.section == Section::Job) {
        comment(&mut text, key);
        let set = SET.iter().find(|(name, _)| *name == key.name);
        let line = match (key.name, set, key.absent) {
            ("base_model", ..) => format!("base_model: {}", quoted(sample.model)),
            ("output_dir", ..) => format!("output_dir: {}", quoted(sample.output_dir)),
            ("sequence_len", ..) => format!("sequence_len: {}", sample.sequence_len),
            ("datasets", ..) => format!(
                "datasets:\n  - path: {}\n    type: {}",
                quoted(sample.data),
                sample.kind
            ),
            (name, Some((_, value)), _) if !skips(sample, name) => format!("{name}: {value}"),
            (name, _, Absent::Is(value)) => format!("# {name}: {value}"),
            (name, _, Absent::Means(_) | Absent::Refused) => format!("# {name}:"),
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

/// A `tokens` file says its own steps.
fn skips(sample: &Sample, name: &str) -> bool {
    sample.kind == "tokens" && name == "num_epochs"
}

/// What a key does, within 100 columns.
fn comment(text: &mut String, key: &Key) {
    let mut words = format!("{}: {}", key.meaning, key.allowed);
    if let Absent::Means(absent) = key.absent {
        words += &format!("; without it: {absent}");
    }
    let mut line = "\n#".to_string();
    for word in words.split_whitespace() {
        if line.trim_start().chars().count() + 1 + word.chars().count() > 98 {
            let _ = writeln!(text, "{line}");
            line = "#".to_string();
        }
        line.push(' ');
        line += word;
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::job_file::JobFile;

    #[test]
    fn a_new_job_file_is_a_job_file() {
        for kind in ["text", "instruct"] {
            let text = text(&Sample {
                model: "models/a: b",
                data: "rows \"x\".jsonl",
                kind,
                sequence_len: 512,
                output_dir: "out/job",
            });
            let job = JobFile::parse(Path::new("job.yaml"), &text).expect(&text);
            assert_eq!(job.base_model, "models/a: b");
            assert_eq!(job.datasets[0].kind.name(), kind);
            assert!(
                text.lines().all(|line| line.chars().count() <= 100),
                "{text}"
            );
            // Every key is there, set or with a word on it.
            for key in KEYS.iter().filter(|key| key.section == Section::Job) {
                assert!(text.contains(&format!("{}:", key.name)), "{}", key.name);
            }
        }
    }

    #[test]
    fn the_type_is_seen_from_the_first_row() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            kind(&path)
        };
        assert_eq!(of("a.txt", "words").unwrap(), "text");
        let row = "{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}";
        assert_eq!(of("a.jsonl", row).unwrap(), "instruct");
        assert_eq!(of("a.json", &format!(" [{row}, 7]")).unwrap(), "instruct");
        assert_eq!(of("b.jsonl", "{\"text\": \"a\"}").unwrap(), "text");
        for (text, expected) in [
            ("", "the file is empty"),
            ("{\"a\": 1}", "its rows have neither"),
            ("[1]", "its first row is not read"),
            ("{\"chosen\": 1}", "its rows have `chosen`"),
        ] {
            let error = of("c.jsonl", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
