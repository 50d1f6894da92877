//! Reports what is read from the data sets of a job, and above all what is left out.

use concord_data::{DataCounts, DatasetKind, DatasetSource};
use serde_json::{Value, json};

use crate::support::data_event::data_event;
use crate::support::output::Output;

/// A note that is shown before a job starts.
pub struct Told {
    line: String,
    object: Value,
    /// Whether examples or documents are left out or cut.
    is_less: bool,
}

impl Told {
    /// A note on the sequences of `sources`, of at most `len` tokens.
    pub fn of(sources: &[DatasetSource], len: u32, counts: &DataCounts) -> Self {
        let lost = [
            counts.truncated,
            counts.dropped,
            counts.skipped,
            counts.blank,
        ];
        Self {
            line: line(sources, len, counts),
            object: data_event(sources, len, counts),
            is_less: lost.iter().any(|lost| *lost > 0),
        }
    }

    /// A note on a choice that was made where the job file makes none.
    pub fn note(words: &str) -> Self {
        Self::event(words.to_string(), json!({ "event": "note", "note": words }))
    }

    /// A note that programs get as this event.
    pub fn event(line: String, object: Value) -> Self {
        Self {
            line,
            object,
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

fn line(sources: &[DatasetSource], len: u32, counts: &DataCounts) -> String {
    let paths = sources
        .iter()
        .map(|source| source.path.display().to_string());
    let paths: Vec<String> = paths.collect();
    let (noun, most) = match sources.first().map(|source| source.kind) {
        Some(DatasetKind::Text) => ("document", ""),
        _ => ("example", "at most "),
    };
    let examples = u64::from(counts.examples);
    let mut line = format!(
        "{}: {}, {} of {most}{len} tokens",
        paths.join(", "),
        count(examples, noun),
        count(counts.sequences.into(), "sequence")
    );
    let losses = [
        ("cut at the end", counts.truncated),
        ("cut into several sequences", counts.split),
        ("left out as longer than a sequence", counts.dropped),
        (
            "left out, with no room for an answer behind the instruction",
            counts.skipped,
        ),
        ("turns that the chat template shortens", counts.shortened),
        ("left out as empty", counts.blank),
    ];
    for (what, lost) in losses.into_iter().filter(|(_, lost)| *lost > 0) {
        line += &format!("; {what}: {lost}");
    }
    if counts.truncated + counts.dropped + counts.skipped > 0 {
        line += "; a larger sequence_len keeps more";
    }
    match counts.tail {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: DatasetKind, change: impl Fn(&mut DataCounts)) -> String {
        let mut counts = DataCounts {
            sequences: 2,
            examples: 3,
            ..DataCounts::default()
        };
        change(&mut counts);
        line(&[DatasetSource::new("a", kind)], 4, &counts)
    }

    #[test]
    fn whatever_is_left_out_is_told_with_its_count() {
        let kind = DatasetKind::Instruct;
        assert_eq!(
            told(kind, |_| {}),
            "a: 3 examples, 2 sequences of at most 4 tokens"
        );
        let line = told(kind, |counts| (counts.truncated, counts.skipped) = (1, 2));
        assert!(
            line.contains("; cut at the end: 1; left out, with no room"),
            "{line}"
        );
        assert!(
            line.ends_with("; a larger sequence_len keeps more"),
            "{line}"
        );
        let text = DatasetKind::Text;
        let line = told(text, |counts| (counts.blank, counts.tail) = (5, 3));
        assert!(line.contains("3 documents"), "{line}");
        assert!(line.contains("; left out as empty: 5;"), "{line}");
        assert!(
            line.ends_with("; the last 3 tokens fill no sequence and are left out"),
            "{line}"
        );
        let line = told(text, |counts| counts.tail = 1);
        assert!(
            line.ends_with("; the last token fills no sequence and is left out"),
            "{line}"
        );
    }
}
