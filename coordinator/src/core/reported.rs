//! What peers say in words, made fit to be stored, logged and shown to others.

use concord_proto::limits::is_unprintable;

/// The most characters that are shown of what a peer says.
const CHARS_MAX: usize = 1_000;

/// The words of a peer: on one line, without control characters, cut to `CHARS_MAX` characters.
pub(super) fn reported(words: String) -> String {
    let mut words = words;
    if words.contains(is_unprintable) {
        let parts = words.split(is_unprintable).filter(|part| !part.is_empty());
        words = parts.collect::<Vec<_>>().join(" ");
    }
    match words.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{} ...", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_on_one_line_and_end() {
        for (said, shown) in [
            ("", ""),
            ("plain words", "plain words"),
            ("two\nlines\r\n", "two lines"),
            ("\u{1b}[2Ja clean screen", "[2Ja clean screen"),
            ("a\0b\u{7f}c\u{9b}d", "a b c d"),
            ("\u{202e}drawkcab\u{2069}", "drawkcab"),
            ("\n\n", ""),
        ] {
            assert_eq!(reported(said.to_string()), shown, "{said:?}");
        }
        let long = "\u{e9}".repeat(CHARS_MAX);
        assert_eq!(reported(long.clone()), long);
        let cut = reported(long.clone() + "more");
        assert_eq!(cut, long + " ...");
    }
}
