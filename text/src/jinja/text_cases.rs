//! Cases of texts, and questions about all of their characters.

use super::characters::{decimal, fold, is_digit, is_printable, is_space, is_word, title};
use super::letters::Text;

/// A text in another case.
pub fn cased(text: &Text, name: &str) -> Text {
    let lower = |character: char| character.to_lowercase().collect::<Vec<char>>();
    match name {
        "lower" => lowered(text),
        "upper" => text.map_letters(char::to_uppercase),
        "casefold" => text.map_letters(fold),
        "swapcase" => text.map_letters(|character| match character.is_uppercase() {
            true => lower(character),
            false => character.to_uppercase().collect(),
        }),
        "capitalize" => {
            let first = text.part(0..text.len().min(1)).map_letters(title);
            let rest = lowered(&text.part(text.len().min(1)..text.len()));
            first
                .letters()
                .iter()
                .chain(rest.letters())
                .copied()
                .collect()
        }
        _ => {
            let mut letters = Vec::new();
            let mut within_word = false;
            for letter in text.letters() {
                let character = letter.character();
                let mapped = if within_word {
                    lower(character)
                } else {
                    title(character)
                };
                within_word = is_cased(character);
                letters.extend(mapped.into_iter().map(|c| letter.with(c)));
            }
            letters.into()
        }
    }
}

/// Lower case, with the Greek sigma that ends a word.
fn lowered(text: &Text) -> Text {
    let whole: Vec<char> = text.chars().collect();
    let letters = text.letters().iter().enumerate().flat_map(|(at, letter)| {
        let is_final = letter.character() == '\u{3A3}'
            && at
                .checked_sub(1)
                .is_some_and(|before| is_cased(whole[before]))
            && !whole.get(at + 1).is_some_and(|next| is_cased(*next));
        let lower: Vec<char> = match is_final {
            true => vec!['\u{3C2}'],
            false => letter.character().to_lowercase().collect(),
        };
        lower.into_iter().map(move |c| letter.with(c))
    });
    letters.collect()
}

fn is_cased(character: char) -> bool {
    character.is_uppercase()
        || character.is_lowercase()
        || matches!(character, '\u{1C5}' | '\u{1C8}' | '\u{1CB}' | '\u{1F2}')
}

/// The questions about all characters of a text.
pub fn is(text: &Text, name: &str) -> bool {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    let has_case = || text.chars().any(is_cased);
    match name {
        "isalnum" => all(|c| c.is_alphanumeric() || is_digit(c)),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.chars().all(|c| c.is_ascii()),
        "isdecimal" => all(|c| decimal(c).is_some()),
        "isdigit" => all(is_digit),
        "isnumeric" => all(|c| c.is_numeric() || is_digit(c)),
        "isspace" => all(is_space),
        "isprintable" => text.chars().all(is_printable),
        "islower" => has_case() && !text.chars().any(char::is_uppercase),
        "isupper" => has_case() && !text.chars().any(char::is_lowercase),
        "isidentifier" => {
            let first = text.chars().next();
            let begins = first.is_some_and(|c| c.is_alphabetic() || c == '_');
            begins && text.chars().all(is_word)
        }
        // `istitle`: upper case exactly where a word begins.
        _ => {
            let mut within_word = false;
            for character in text.chars() {
                let is_upper = character.is_uppercase();
                if is_cased(character) && is_upper == within_word {
                    return false;
                }
                within_word = is_cased(character);
            }
            has_case()
        }
    }
}
