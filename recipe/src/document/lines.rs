//! On which line of a YAML text each key stands. The YAML reader does not tell, so the block style
//! is followed here: indents, list items, texts over several lines. A key within braces or brackets
//! has its line where its name stands on one line alone, else that of the key before these. The
//! lines are used in messages alone.

use std::collections::BTreeMap;

/// A key or a list item that is open.
struct Frame {
    /// Column of its first character.
    column: usize,
    path: String,
    is_item: bool,
}

/// KeyLines by path, such as `datasets[0].type`; the first line is 1.
#[derive(Clone, Debug, Default)]
pub struct KeyLines {
    by_path: BTreeMap<String, usize>,
    /// By the name alone, wherever it is followed by a colon; nothing where it is on several lines.
    by_name: BTreeMap<String, Option<usize>>,
}

impl KeyLines {
    /// Follows the block style of `text`.
    pub fn of(text: &str) -> Self {
        let mut reader = Reader::default();
        let mut by_name: BTreeMap<String, Option<usize>> = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            reader.line(index + 1, line);
            for name in names(line) {
                let line = by_name.entry(name.to_string()).or_insert(Some(index + 1));
                *line = line.filter(|line| *line == index + 1);
            }
        }
        Self {
            by_path: reader.found,
            by_name,
        }
    }

    /// The line of a path, or of what holds it.
    pub fn line(&self, path: &str) -> Option<usize> {
        let name = path.rsplit(['.', ']']).next().unwrap_or(path);
        let by_name = self.by_name.get(name).copied().flatten();
        if let Some(line) = self.by_path.get(path).copied().or(by_name) {
            return Some(line);
        }
        let mut path = path;
        loop {
            if let Some(line) = self.by_path.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

#[derive(Default)]
struct Reader {
    found: BTreeMap<String, usize>,
    open: Vec<Frame>,
    /// How many items each list has had.
    items: BTreeMap<String, usize>,
    /// The column of the key whose text over several lines is being read.
    text_of: Option<usize>,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) {
        let code = line.trim_start_matches(' ');
        let mut column = line.len() - code.len();
        if code.trim().is_empty() {
            return;
        }
        match self.text_of {
            Some(key) if column > key => return,
            _ => self.text_of = None,
        }
        if code.starts_with(['#', '%']) || code.starts_with("---") {
            return;
        }
        let mut rest = code;
        while let Some(after) = rest.strip_prefix('-').filter(|rest| begins_value(rest)) {
            self.item(number, column);
            let trimmed = after.trim_start_matches(' ');
            column += 1 + after.len() - trimmed.len();
            rest = trimmed;
        }
        if let Some((key, value)) = split_key(rest) {
            self.key(number, column, key);
            if value.trim_start().starts_with(['|', '>']) {
                self.text_of = Some(column);
            }
        }
    }

    fn item(&mut self, number: usize, column: usize) {
        // The items of a list may stand in the column of its key.
        self.close(|frame| frame.column > column || (frame.is_item && frame.column == column));
        let list = self.path().to_string();
        let index = self.items.entry(list.clone()).or_default();
        let path = format!("{list}[{index}]");
        *index += 1;
        self.open(number, column, path, true);
    }

    fn key(&mut self, number: usize, column: usize, key: &str) {
        self.close(|frame| frame.column >= column);
        let path = match self.path() {
            "" => key.to_string(),
            holder => format!("{holder}.{key}"),
        };
        self.open(number, column, path, false);
    }

    fn close(&mut self, ends: impl Fn(&Frame) -> bool) {
        while self.open.last().is_some_and(&ends) {
            self.open.pop();
        }
    }

    fn path(&self) -> &str {
        self.open.last().map_or("", |frame| &frame.path)
    }

    fn open(&mut self, number: usize, column: usize, path: String, is_item: bool) {
        self.found.entry(path.clone()).or_insert(number);
        self.open.push(Frame {
            column,
            path,
            is_item,
        });
    }
}

/// The words of a line that a colon follows.
fn names(line: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let ends = line.match_indices(':').map(|(at, _)| line[..at].trim_end());
    ends.filter_map(move |before| {
        let start = before.rfind(|c| !is_word(c)).map_or(0, |at| at + 1);
        before.get(start..).filter(|name| !name.is_empty())
    })
}

fn begins_value(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(' ')
}

/// The key of a line, without quotes, and what follows its colon.
fn split_key(code: &str) -> Option<(&str, &str)> {
    let quote = code
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    if let Some(quote) = quote {
        let (key, rest) = code[1..].split_once(quote)?;
        let value = rest.trim_start().strip_prefix(':')?;
        return Some((key, value));
    }
    if code.starts_with(['{', '[', '&', '*', '!']) {
        return None;
    }
    let colon = code.match_indices(':').find(|(at, _)| {
        let after = code.as_bytes().get(at + 1);
        after.is_none_or(|byte| byte.is_ascii_whitespace())
    });
    let (at, _) = colon?;
    let key = code[..at].trim_end();
    (!key.contains(" #")).then_some((key, &code[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::KeyLines;

    #[test]
    fn every_style_of_block_is_followed() {
        let text = [
            "# a comment: no key",
            "base: m",
            "",
            "datasets:",
            "- path: a",
            "  type: x",
            "-  path: b",
            "   roles:",
            "     user: [u]",
            "text: |",
            "  base: not a key",
            "",
            "  more: no",
            "\"quoted\": 1",
            "nested:",
            "    - - deep: 1",
            "    -",
            "      late: 2",
            "last : 3",
        ];
        let lines = KeyLines::of(&text.join("\n"));
        let expected = [
            ("base", 2),
            ("datasets", 4),
            ("datasets[0].path", 5),
            ("datasets[0].type", 6),
            ("datasets[1].path", 7),
            ("datasets[1].roles.user", 9),
            ("text", 10),
            ("quoted", 14),
            ("nested[0][0].deep", 16),
            ("nested[1].late", 18),
            ("last", 19),
        ];
        for (path, line) in expected {
            assert_eq!(lines.line(path), Some(line), "{path}");
        }
        // Within braces a name has its line where it stands on one alone.
        assert_eq!(KeyLines::of("{a: 1,\n b: 2,\n a: 3}").line("b"), Some(2));
        // What stands within braces has the line of its holder.
        assert_eq!(lines.line("datasets[1].roles.user[0]"), Some(9));
        assert_eq!(KeyLines::of("a: {b: 1}").line("a.b"), Some(1));
    }

    #[test]
    fn no_text_makes_it_fail() {
        for text in [
            "",
            ":",
            "-",
            "- -",
            "\"",
            "'a",
            "a:\n\t- b",
            "?",
            "- : x",
            "\u{e9}: \u{fc}\n  \u{f6}: 1",
        ] {
            let _ = KeyLines::of(text);
        }
        assert_eq!(
            KeyLines::of("\u{e9}: \u{fc}\n  \u{f6}: 1").line("\u{e9}.\u{f6}"),
            Some(2)
        );
    }
}
