//! Kinds of characters, as Python has them.

/// `str.isspace`, and what `strip` takes off.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1C}'..='\u{1F}')
}

/// A character that ends a line for `splitlines`.
pub fn is_line_end(character: char) -> bool {
    matches!(
        character,
        '\n' | '\r' | '\u{B}' | '\u{C}' | '\u{1C}'..='\u{1E}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// The first of each ten characters that are the digits 0 to 9 of a script.
const ZEROS: [u32; 37] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66,
    0xDE6, 0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90,
    0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
];

/// The value of a decimal digit of any script: `str.isdecimal`.
pub fn decimal(character: char) -> Option<u32> {
    let code = u32::from(character);
    let zero = ZEROS
        .iter()
        .find(|zero| (**zero..**zero + 10).contains(&code));
    zero.map(|zero| code - zero)
}

/// `str.isdigit`: decimal digits, and those in a raised, lowered or circled place.
pub fn is_digit(character: char) -> bool {
    let other = matches!(
        character,
        '\u{B2}' | '\u{B3}' | '\u{B9}' | '\u{1369}'..='\u{1371}' | '\u{19DA}' | '\u{2070}'
            | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}' | '\u{2460}'..='\u{2468}'
            | '\u{2474}'..='\u{247C}' | '\u{2488}'..='\u{2490}' | '\u{24EA}'
            | '\u{24F5}'..='\u{24FD}' | '\u{24FF}' | '\u{2776}'..='\u{277E}'
            | '\u{2780}'..='\u{2788}' | '\u{278A}'..='\u{2792}'
    );
    other || decimal(character).is_some()
}

/// A letter of a word: `\w` of a regular expression.
pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `repr` shows a character as it is.
pub fn is_printable(character: char) -> bool {
    // Only the first character of a text is escaped for joining the one before it.
    let escaped = format!("a{character}").escape_debug().count();
    escaped == 2 || matches!(character, '\'' | '"' | '\\')
}

/// The upper case of a character where it begins a word.
pub fn title(character: char) -> Vec<char> {
    match character {
        '\u{DF}' => vec!['S', 's'],
        '\u{1C4}'..='\u{1C6}' => vec!['\u{1C5}'],
        '\u{1C7}'..='\u{1C9}' => vec!['\u{1C8}'],
        '\u{1CA}'..='\u{1CC}' => vec!['\u{1CB}'],
        '\u{1F1}'..='\u{1F3}' => vec!['\u{1F2}'],
        '\u{FB00}'..='\u{FB06}' => {
            let mut upper = character.to_uppercase();
            let first: Vec<char> = upper.next().into_iter().collect();
            first
                .into_iter()
                .chain(upper.flat_map(char::to_lowercase))
                .collect()
        }
        other => other.to_uppercase().collect(),
    }
}

/// `str.casefold` of a character.
pub fn fold(character: char) -> Vec<char> {
    match character {
        '\u{131}' => vec![character],
        '\u{13A0}'..='\u{13F5}' => vec![character],
        '\u{AB70}'..='\u{ABBF}' | '\u{13F8}'..='\u{13FD}' => character.to_uppercase().collect(),
        other => other.to_uppercase().flat_map(char::to_lowercase).collect(),
    }
}
