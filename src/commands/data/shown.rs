//! A sequence as people see it: its text, with what is learnt of it marked.

use std::io::IsTerminal;

use concord_data::{DataCounts, SequenceView};
use concord_text::TextTokenizer;
use serde_json::{Value, json};

/// A sequence.
pub(super) struct Shown {
    tokens: Vec<u32>,
    mask: Vec<u8>,
}

impl Shown {
    pub(super) fn of(sequence: &SequenceView) -> Self {
        Self {
            tokens: sequence.tokens.to_vec(),
            mask: sequence.mask.to_vec(),
        }
    }

    /// The sequence as text and as JSON: its parts that are learnt and those that are not.
    pub(super) fn print(&self, index: usize, tokenizer: Option<&TextTokenizer>) -> (String, Value) {
        let has_colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let parts = self.parts(tokenizer);
        let marked = parts.iter().map(|(text, is_learnt)| {
            // What a terminal would take for a command is shown, not sent.
            let text = visible(text);
            match (is_learnt, has_colours) {
                (true, true) => format!("\u{1b}[32m{text}\u{1b}[0m"),
                (true, false) => format!("\u{ab}{text}\u{bb}"),
                (false, _) => text,
            }
        });
        let marked: String = marked.collect();
        let learnt = self.mask.iter().filter(|mask| **mask == 1).count();
        let head = format!(
            "--- sequence {}: {} tokens, {learnt} learnt",
            index + 1,
            self.tokens.len()
        );
        let parts: Vec<Value> = parts
            .iter()
            .map(|(text, is_learnt)| json!({ "text": text, "learnt": is_learnt }))
            .collect();
        let object = json!({
            "event": "sequence", "index": index, "parts": parts, "tokens": self.tokens,
            "loss_mask": self.mask,
        });
        (format!("{head}\n{marked}"), object)
    }

    /// Runs of tokens that are learnt, or are not, as text.
    fn parts(&self, tokenizer: Option<&TextTokenizer>) -> Vec<(String, bool)> {
        let mut parts = Vec::new();
        let mut start = 0;
        for run in self.mask.chunk_by(|a, b| a == b) {
            let ids = &self.tokens[start..start + run.len()];
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
        let sequence = Shown {
            tokens: vec![5, 6, 7],
            mask: vec![0, 1, 1],
        };
        let (text, object) = sequence.print(0, None);
        assert!(text.ends_with("[5] \u{ab}[6, 7] \u{bb}"), "{text}");
        assert_eq!(object["parts"][1]["learnt"], true);
        assert_eq!(visible("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\n");
    }
}
