//! Names, numbers and strings in tags.

use super::characters::is_word;
use super::token::TokenKind;

/// The name, number or string at the start of a text, and its length; `None` where there is none.
///
/// # Errors
/// Saying what is wrong with it.
pub fn read(text: &str) -> Result<Option<(TokenKind, usize)>, String> {
    let first = text.chars().next();
    if matches!(first, Some('\'' | '"')) {
        return string(text).map(Some);
    }
    if first.is_some_and(|c| c.is_ascii_digit()) {
        return number(text).map(Some);
    }
    Ok(name(text).map(|name| (TokenKind::Name(name.to_string()), name.len())))
}

/// How many bytes of digits, with single `_` between them, a text begins with.
fn digits(text: &str, radix: u32) -> usize {
    let mut end = 0;
    let mut before = '_';
    for (at, character) in text.char_indices() {
        match character {
            '_' if before != '_' => {}
            digit if digit.is_digit(radix) => end = at + 1,
            _ => break,
        }
        before = character;
    }
    end
}

fn number(text: &str) -> Result<(TokenKind, usize), String> {
    let lower = text.get(..2).unwrap_or_default().to_ascii_lowercase();
    let radix = match lower.as_str() {
        "0b" => 2,
        "0o" => 8,
        "0x" => 16,
        _ => 10,
    };
    let too_long = |digits: &str| format!("the number {digits} is longer than numbers can be here");
    if radix != 10 && digits(&text[2..], radix) > 0 {
        let length = 2 + digits(&text[2..], radix);
        let plain = text[2..length].replace('_', "");
        let value = i128::from_str_radix(&plain, radix).map_err(|_| too_long(&plain))?;
        return Ok((TokenKind::Int(value), length));
    }
    let whole = digits(text, 10);
    let mut end = whole;
    if text[end..].starts_with('.') {
        let fraction = digits(&text[end + 1..], 10);
        end += if fraction > 0 { 1 + fraction } else { 0 };
    }
    let rest = &text[end..];
    if rest.starts_with(['e', 'E']) {
        let sign = usize::from(rest[1..].starts_with(['+', '-']));
        let exponent = digits(&rest[1 + sign..], 10);
        end += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    let plain = text[..end].replace('_', "");
    if end == whole {
        let value = plain.parse().map_err(|_| too_long(&plain))?;
        return Ok((TokenKind::Int(value), end));
    }
    let value = plain.parse().map_err(|_| format!("{plain} is no number"))?;
    Ok((TokenKind::Float(value), end))
}

fn string(text: &str) -> Result<(TokenKind, usize), String> {
    let quote = text.chars().next().unwrap_or('"');
    let mut value = String::new();
    let mut at = 1;
    loop {
        let Some(character) = text[at..].chars().next() else {
            return Err("a string has no end".to_string());
        };
        at += character.len_utf8();
        if character == quote {
            return Ok((TokenKind::String(value), at));
        }
        match character {
            '\\' => at += escape(&text[at..], &mut value)?,
            other => value.push(other),
        }
    }
}

/// Reads what follows a backslash, as Python does; gives its length.
fn escape(text: &str, value: &mut String) -> Result<usize, String> {
    let Some(sign) = text.chars().next() else {
        return Err("a string has no end".to_string());
    };
    let digits = match sign {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        '0'..='7' => {
            let octal = text
                .bytes()
                .take(3)
                .take_while(|digit| matches!(digit, b'0'..=b'7'));
            let length = octal.count();
            let code = u32::from_str_radix(&text[..length], 8).unwrap_or(0);
            value.extend(char::from_u32(code));
            return Ok(length);
        }
        'N' => return Err("strings with \\N{..} are not supported here".to_string()),
        _ => 0,
    };
    if digits > 0 {
        let hex = text.get(1..1 + digits).unwrap_or_default();
        let code = u32::from_str_radix(hex, 16)
            .ok()
            .filter(|_| !hex.starts_with('+'));
        let character = code.and_then(char::from_u32);
        let wrong = || format!("\\{sign}{hex} in a string is no character");
        value.push(character.ok_or_else(wrong)?);
        return Ok(1 + digits);
    }
    match sign {
        '\n' => {}
        '\\' | '\'' | '"' => value.push(sign),
        'a' => value.push('\u{7}'),
        'b' => value.push('\u{8}'),
        'f' => value.push('\u{C}'),
        'n' => value.push('\n'),
        'r' => value.push('\r'),
        't' => value.push('\t'),
        'v' => value.push('\u{B}'),
        other => value.extend(['\\', other]),
    }
    Ok(sign.len_utf8())
}

/// The name at the start of a text.
pub fn name(text: &str) -> Option<&str> {
    let first = text.chars().next()?;
    let is_name = first.is_alphabetic() || first == '_';
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    is_name.then(|| &text[..end])
}
