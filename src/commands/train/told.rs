//! Reports what is read from the data sets of a job, and above all what is left out.

use concord_models::data::{DatasetKind, DatasetSource, Sequences};
use serde_json::{Value, json};

use crate::support::output::Output;

/// A note that is shown before a job starts.
pub struct Told {
    line: String,
    object: Value,
    /// Whether examples or documents are left out or cut.
    is_less: bool,
}

impl Told {
    /// A note on the sequences of `sources`.
    pub fn of(sources: &[DatasetSource], sequences: &Sequences) -> Self {
        Self {
            line: line(sources, sequences),
            object: object(sources, sequences),
            is_less: sequences.truncated + sequences.skipped + sequences.blank > 0,
        }
    }

    /// A note on a choice that was made where the job file makes none.
    pub fn note(words: &str) -> Self {
        Self {
            line: words.to_string(),
            object: json!({ "event": "note", "note": words }),
            is_less: false,
        }
    }

    /// Shows it: as a line on stderr, or with `--json` as an event; as both where something is left
    /// out.
    pub fn tell(&self, output: &Output) {
        output.result("", &self.object);
        if !output.is_json() || self.is_less {
            eprintln!("{}", self.line);
        }
    }
}

fn line(sources: &[DatasetSource], sequences: &Sequences) -> String {
    let paths = sources
        .iter()
        .map(|source| source.path.display().to_string());
    let paths: Vec<String> = paths.collect();
    let noun = match sources.first().map(|source| source.kind) {
        Some(DatasetKind::Text) => "document",
        _ => "example",
    };
    let (len, examples) = (sequences.len, u64::from(sequences.examples));
    let mut line = format!(
        "{}: {}, {} of {len} tokens",
        paths.join(", "),
        count(examples, noun),
        count(sequences.count() as u64, "sequence")
    );
    let losses = [
        ("cut at the end", sequences.truncated),
        (
            "left out, with no room for an answer behind the instruction",
            sequences.skipped,
        ),
        ("left out as empty", sequences.blank),
    ];
    for (what, lost) in losses.into_iter().filter(|(_, lost)| *lost > 0) {
        line += &format!("; {what}: {lost}");
    }
    if sequences.truncated + sequences.skipped > 0 {
        line += "; a larger sequence_len keeps more";
    }
    match sequences.tail {
        0 => {}
        1 => line += "; the last token fills no sequence and is left out",
        tail => line += &format!("; the last {tail} tokens fill no sequence and are left out"),
    }
    line
}

fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

fn object(sources: &[DatasetSource], sequences: &Sequences) -> Value {
    let paths: Vec<&std::path::Path> = sources.iter().map(|source| source.path.as_path()).collect();
    json!({
        "event": "data", "paths": paths, "type": sources.first().map(|source| source.kind.name()),
        "examples": sequences.examples, "sequences": sequences.count(),
        "sequence_len": sequences.len, "truncated": sequences.truncated,
        "skipped": sequences.skipped, "blank": sequences.blank, "tail_tokens": sequences.tail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: DatasetKind, change: impl Fn(&mut Sequences)) -> String {
        let mut sequences = Sequences {
            len: 4,
            tokens: vec![0; 8],
            loss_mask: vec![0; 8],
            grouping: None,
            examples: 3,
            truncated: 0,
            skipped: 0,
            blank: 0,
            tail: 0,
        };
        change(&mut sequences);
        line(&[DatasetSource::new("a", kind)], &sequences)
    }

    #[test]
    fn whatever_is_left_out_is_told_with_its_count() {
        let kind = DatasetKind::Instruct;
        assert_eq!(told(kind, |_| {}), "a: 3 examples, 2 sequences of 4 tokens");
        let line = told(kind, |sequences| {
            (sequences.truncated, sequences.skipped) = (1, 2)
        });
        assert!(
            line.contains("; cut at the end: 1; left out, with no room"),
            "{line}"
        );
        assert!(
            line.ends_with("; a larger sequence_len keeps more"),
            "{line}"
        );
        let text = DatasetKind::Text;
        let line = told(text, |sequences| (sequences.blank, sequences.tail) = (5, 3));
        assert!(line.contains("3 documents"), "{line}");
        assert!(line.contains("; left out as empty: 5;"), "{line}");
        assert!(
            line.ends_with("; the last 3 tokens fill no sequence and are left out"),
            "{line}"
        );
        let line = told(text, |sequences| sequences.tail = 1);
        assert!(
            line.ends_with("; the last token fills no sequence and is left out"),
            "{line}"
        );
    }
}
