//! A job file with a word on each key, for `concord init`.

use std::fmt::Write as _;

use concord_data::{DatasetKind, DatasetSource};
use serde_json::json;

use super::known::{Absent, KEYS, Key, Section};

/// What a new job file is for.
pub struct Sample<'a> {
    pub model: &'a str,
    pub data: &'a str,
    /// What the data set looks like.
    pub seen: &'a DatasetSource,
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
            ("datasets", ..) => dataset(sample),
            (name, Some((_, value)), _) if !skips(sample, name) => format!("{name}: {value}"),
            (name, _, Absent::Is(value)) => format!("# {name}: {value}"),
            (name, _, Absent::Means(_) | Absent::Refused) => format!("# {name}:"),
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The entry of the data set, with fields that are not the usual ones of its type.
fn dataset(sample: &Sample) -> String {
    let seen = sample.seen;
    let usual = DatasetSource::new(&seen.path, seen.kind);
    let mut text = format!(
        "datasets:\n  - path: {}\n    type: {}",
        json!(sample.data),
        seen.kind.name()
    );
    for (key, name, usual) in [
        (
            "field_instruction",
            &seen.field_instruction,
            &usual.field_instruction,
        ),
        ("field_output", &seen.field_output, &usual.field_output),
    ] {
        if name != usual {
            let _ = write!(text, "\n    {key}: {}", json!(name));
        }
    }
    if seen.message_properties != usual.message_properties {
        let names = json!(seen.message_properties);
        let _ = write!(text, "\n    message_property_mappings: {names}");
    }
    text
}

/// A `tokens` file says its own steps.
fn skips(sample: &Sample, name: &str) -> bool {
    sample.seen.kind == DatasetKind::Tokens && !sample.seen.has_rows() && name == "num_epochs"
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
    use std::path::Path;

    use super::*;
    use crate::support::job_file::JobFile;

    #[test]
    fn a_new_job_file_is_a_job_file() {
        for kind in [DatasetKind::Text, DatasetKind::Instruct] {
            let mut seen = DatasetSource::new("rows.jsonl", kind);
            seen.field_output = match kind {
                DatasetKind::Text => seen.field_output,
                _ => "answer".to_string(),
            };
            let text = text(&Sample {
                model: "models/a: b",
                data: "rows \"x\".jsonl",
                seen: &seen,
                sequence_len: 512,
                output_dir: "out/job",
            });
            let job = JobFile::parse(Path::new("job.yaml"), &text).expect(&text);
            assert_eq!(job.base_model, "models/a: b");
            assert_eq!(job.datasets[0].kind, kind);
            assert_eq!(job.datasets[0].field_output, seen.field_output);
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
        let of = |name: &str, text: &str, has_template| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            concord_data::guess(&path, has_template).map(|seen| seen.kind.name())
        };
        let row = "{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}";
        for (name, text, has_template, expected) in [
            ("a.txt", "words", true, "text"),
            ("a.jsonl", row, false, "instruct"),
            ("a.json", &*format!(" [{row}, 7]"), true, "alpaca_turns"),
            ("b.jsonl", "{\"text\": \"a\"}", true, "text"),
            ("b.csv", "question,answer\na,b\n", true, "alpaca_turns"),
        ] {
            assert_eq!(of(name, text, has_template).unwrap(), expected, "{name}");
        }
        for (text, expected) in [
            ("", "empty"),
            ("{\"a\": 1}", "its fields do not say what it is"),
        ] {
            let error = of("c.jsonl", text, true).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
