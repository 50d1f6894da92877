//! A sequence as people see it: its text, with what is learnt of it marked.

use std::fmt::Write as _;
use std::io::IsTerminal;

use concord_data::DataCounts;
use concord_proto::TrainingSequence;
use concord_text::TextTokenizer;
use serde_json::{Value, json};

/// The sequence as text and as JSON: its parts that are learnt and those that are not, and the
/// documents that it consists of.
pub(super) fn print(
    sequence: &TrainingSequence,
    index: usize,
    tokenizer: Option<&TextTokenizer>,
) -> (String, Value) {
    let has_colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let learnt = sequence.mask.iter().filter(|mask| **mask == 1).count();
    let (count, all) = (sequence.tokens.len(), sequence.documents.len());
    let mut text = format!(
        "--- sequence {}: {count} tokens, {learnt} learnt",
        index + 1
    );
    if all > 1 {
        let _ = write!(text, ", {all} documents");
    }
    let (mut parts, mut documents, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    let mut start = 0;
    for (number, length) in (1..).zip(&sequence.documents) {
        let range = start..start + *length as usize;
        if all > 1 {
            let (last, end) = (length - 1, range.end - 1);
            let _ = write!(
                text,
                "\n-- document {number} of {all}: tokens {start} to {end}, positions 0 to {last}"
            );
        }
        text.push('\n');
        let (ids, mask) = (
            &sequence.tokens[range.clone()],
            &sequence.mask[range.clone()],
        );
        for (part, is_learnt) in parts_of(ids, mask, tokenizer) {
            text += &marked(&part, is_learnt, has_colours);
            parts.push(json!({ "text": part, "learnt": is_learnt, "document": number }));
        }
        documents.push(json!({ "start": start, "tokens": length }));
        positions.extend(0..*length);
        start = range.end;
    }
    let object = json!({
        "event": "sequence", "index": index, "parts": parts, "tokens": sequence.tokens,
        "loss_mask": sequence.mask, "documents": documents, "positions": positions,
    });
    (text, object)
}

/// A part of a sequence for people. What a terminal would take for a command is shown, not sent.
fn marked(text: &str, is_learnt: bool, has_colours: bool) -> String {
    let text = visible(text);
    match (is_learnt, has_colours) {
        (true, true) => format!("\u{1b}[32m{text}\u{1b}[0m"),
        (true, false) => format!("\u{ab}{text}\u{bb}"),
        (false, _) => text,
    }
}

/// Runs of tokens that are learnt, or are not, as text.
fn parts_of(tokens: &[u32], mask: &[u8], tokenizer: Option<&TextTokenizer>) -> Vec<(String, bool)> {
    let mut parts = Vec::new();
    let mut start = 0;
    for run in mask.chunk_by(|a, b| a == b) {
        let ids = &tokens[start..start + run.len()];
        let text = match tokenizer {
            Some(tokenizer) => {
                let bytes: Vec<u8> = ids
                    .iter()
                    .flat_map(|id| tokenizer.token_bytes(*id))
                    .collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            None => format!("{ids:?} "),
        };
        parts.push((text, run.first() == Some(&1)));
        start += run.len();
    }
    parts
}

/// The text without characters that control a terminal, except line feeds and tabs.
fn visible(text: &str) -> String {
    let shown = text.chars().map(|c| match c {
        '\n' | '\t' => c,
        c if c.is_control() => '\u{fffd}',
        c => c,
    });
    shown.collect()
}

/// What was left out or cut, and how often.
pub(super) fn losses(counts: &DataCounts) -> impl Iterator<Item = (&'static str, u32)> {
    let all = [
        ("examples cut at the end", counts.truncated),
        ("examples cut into several sequences", counts.split),
        (
            "examples left out as longer than a sequence",
            counts.dropped,
        ),
        ("examples left out with nothing to learn", counts.skipped),
        (
            "turns that the chat template shortens, such as by a thought",
            counts.shortened,
        ),
        ("empty documents left out", counts.blank),
        ("last tokens that fill no sequence", counts.tail),
    ];
    all.into_iter().filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learnt_is_marked_and_nothing_controls_the_terminal() {
        let mut sequence = TrainingSequence::whole(vec![5, 6, 7], vec![0, 1, 1]);
        let (text, object) = print(&sequence, 0, None);
        assert!(!text.contains("document"), "{text}");
        assert!(text.ends_with("[5] \u{ab}[6, 7] \u{bb}"), "{text}");
        assert_eq!(object["parts"][1]["learnt"], true);
        sequence.append(TrainingSequence::whole(vec![8, 9], vec![0, 1]));
        let (text, object) = print(&sequence, 0, None);
        for line in [
            "--- sequence 1: 5 tokens, 3 learnt, 2 documents",
            "-- document 1 of 2: tokens 0 to 2, positions 0 to 2",
            "-- document 2 of 2: tokens 3 to 4, positions 0 to 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        assert_eq!(object["positions"], json!([0, 1, 2, 0, 1]));
        assert_eq!(object["documents"][1], json!({ "start": 3, "tokens": 2 }));
        assert_eq!(visible("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\n");
    }
}
