//! Cuts the text of a template into tokens, without the white space that tags remove.

use super::characters::is_space;
use super::fault::{Fault, Made};
use super::literal;
use super::token::{TemplateToken, TokenKind};

/// Longer ones first.
static OPERATORS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",",
];

/// Cuts a template into tokens, with trim_blocks and lstrip_blocks.
///
/// # Errors
/// Naming what cannot be read, and its line.
pub fn tokens(source: &str) -> Made<Vec<TemplateToken>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer {
        source: &source,
        at: 0,
        counted: 0,
        line: 1,
        begins_line: true,
        tokens: Vec::new(),
    };
    while lexer.at < source.len() {
        lexer.data()?;
    }
    lexer.push(TokenKind::End);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    /// Up to where lines are counted.
    counted: usize,
    line: u32,
    /// What was read last ended a line.
    begins_line: bool,
    tokens: Vec<TemplateToken>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, kind: TokenKind) {
        let passed = &self.source[self.counted..self.at];
        self.line += passed.matches('\n').count() as u32;
        self.counted = self.at;
        let line = self.line;
        self.tokens.push(TemplateToken { line, kind });
    }

    fn fail(&self, reason: String) -> Fault {
        let passed = &self.source[self.counted..self.at];
        Fault::new(reason).at(self.line + passed.matches('\n').count() as u32)
    }

    /// Reads text up to a tag, and the tag.
    fn data(&mut self) -> Made<()> {
        let rest = self.rest();
        let begins = ["{{", "{%", "{#"].map(|begin| rest.find(begin));
        let Some(start) = begins.into_iter().flatten().min() else {
            self.text(rest);
            self.at = self.source.len();
            return Ok(());
        };
        let begin = &rest[start..start + 2];
        let sign = rest[start + 2..].chars().next();
        let mut text = &rest[..start];
        match sign {
            Some('-') => text = text.trim_end_matches(is_space),
            Some('+') => {}
            _ if begin == "{{" => {}
            _ => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                if (line > 0 || self.begins_line) && text[line..].chars().all(is_space) {
                    text = &text[..line];
                }
            }
        }
        self.text(text);
        self.at += start + 2;
        self.at += usize::from(matches!(sign, Some('-' | '+')));
        self.begins_line = false;
        match begin {
            "{#" => self.comment(),
            "{%" => match self.raw_begin() {
                Some(length) => self.raw(length),
                None => {
                    self.push(TokenKind::BlockBegin);
                    self.inside("%}", TokenKind::BlockEnd)
                }
            },
            _ => {
                self.push(TokenKind::VariableBegin);
                self.inside("}}", TokenKind::VariableEnd)
            }
        }
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(TokenKind::Text(text.to_string()));
        }
    }

    fn comment(&mut self) -> Made<()> {
        let Some(end) = self.rest().find("#}") else {
            return Err(self.fail("a comment has no end".to_string()));
        };
        let sign = self.rest()[..end].chars().next_back();
        self.at += end + 2;
        self.behind_tag(sign);
        Ok(())
    }

    /// Removes the white space that the end of a tag swallows.
    fn behind_tag(&mut self, sign: Option<char>) {
        match sign {
            Some('-') => {
                let rest = self.rest();
                let stripped = rest.trim_start_matches(is_space);
                let space = &rest[..rest.len() - stripped.len()];
                self.begins_line = space.ends_with('\n');
                self.at += space.len();
            }
            Some('+') => self.begins_line = false,
            _ => {
                self.begins_line = self.rest().starts_with('\n');
                self.at += usize::from(self.begins_line);
            }
        }
    }

    /// The length of the rest of a tag that begins raw text.
    fn raw_begin(&self) -> Option<usize> {
        let rest = self.rest();
        let inner = rest.trim_start_matches(is_space).strip_prefix("raw")?;
        let inner = inner.trim_start_matches(is_space);
        let end = inner
            .strip_prefix("-%}")
            .or_else(|| inner.strip_prefix("%}"))?;
        Some(rest.len() - end.len())
    }

    fn raw(&mut self, length: usize) -> Made<()> {
        let strips = self.rest()[..length].ends_with("-%}");
        self.at += length;
        if strips {
            self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
        }
        let rest = self.rest();
        for (start, _) in rest.match_indices("{%") {
            let inner = &rest[start + 2..];
            let sign = inner
                .chars()
                .next()
                .filter(|sign| matches!(sign, '-' | '+'));
            let inner = &inner[usize::from(sign.is_some())..];
            let Some(inner) = inner.trim_start_matches(is_space).strip_prefix("endraw") else {
                continue;
            };
            let inner = inner.trim_start_matches(is_space);
            let last = inner
                .chars()
                .next()
                .filter(|sign| matches!(sign, '-' | '+'));
            let inner = &inner[usize::from(last.is_some())..];
            let Some(behind) = inner.strip_prefix("%}") else {
                continue;
            };
            let mut text = &rest[..start];
            let line = text.rfind('\n').map_or(0, |at| at + 1);
            match sign {
                Some('-') => text = text.trim_end_matches(is_space),
                Some(_) => {}
                None if line > 0 && text[line..].chars().all(is_space) => text = &text[..line],
                None => {}
            }
            self.text(text);
            self.at += rest.len() - behind.len();
            self.behind_tag(last);
            return Ok(());
        }
        Err(self.fail("raw text has no end".to_string()))
    }

    /// Reads a tag up to its end.
    fn inside(&mut self, end: &str, end_kind: TokenKind) -> Made<()> {
        let mut brackets: Vec<char> = Vec::new();
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches(is_space).len();
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return Err(self.fail(format!("a tag has no end: '{end}' is missing")));
            };
            if brackets.is_empty() {
                let is_block = end == "%}";
                let sign = (first == '-' || (first == '+' && is_block)).then_some(first);
                if rest[usize::from(sign.is_some())..].starts_with(end) {
                    self.at += usize::from(sign.is_some()) + end.len();
                    self.push(end_kind);
                    match (is_block, sign) {
                        (false, None) => self.begins_line = false,
                        _ => self.behind_tag(sign),
                    }
                    return Ok(());
                }
            }
            if let Some((kind, length)) = literal::read(rest).map_err(|reason| self.fail(reason))? {
                self.at += length;
                self.push(kind);
                continue;
            }
            let Some(operator) = OPERATORS.iter().copied().find(|op| rest.starts_with(op)) else {
                return Err(self.fail(format!("unexpected character {first:?}")));
            };
            match operator {
                "(" | "[" | "{" => brackets.push(first),
                ")" | "]" | "}" => {
                    let opener = match first {
                        ')' => '(',
                        ']' => '[',
                        _ => '{',
                    };
                    if brackets.pop() != Some(opener) {
                        return Err(self.fail(format!("unexpected '{first}'")));
                    }
                }
                _ => {}
            }
            self.at += operator.len();
            self.push(TokenKind::Operator(operator));
        }
    }
}
