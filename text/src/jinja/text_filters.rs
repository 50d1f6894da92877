//! Filters of texts. Other values come as their texts.

use super::budget::Budget;
use super::characters::{is_space, is_word};
use super::fault::{Fault, Made};
use super::letters::{Letter, Text};
use super::operators::joined;
use super::print::{add, text_of};
use super::text_cases::cased;
use super::text_methods::{lines, replace, split_from_end, strip};
use super::value::{Given, Value};

/// The names of these filters.
pub const NAMES: [&str; 15] = [
    "capitalize",
    "center",
    "e",
    "escape",
    "forceescape",
    "indent",
    "lower",
    "replace",
    "title",
    "trim",
    "truncate",
    "upper",
    "urlencode",
    "wordcount",
    "xmlattr",
];

/// Applies a filter to a text; `value` is what the text is of.
pub fn apply(text: &Text, value: &Value, mut given: Given, budget: &mut Budget) -> Made<Value> {
    budget.look(text.len())?;
    let name = given.name.clone();
    let made = match name.as_str() {
        "lower" | "upper" | "capitalize" => {
            budget.make::<Letter>(text.len())?;
            cased(text, &name)
        }
        "trim" => {
            let set = given.text(0, "chars")?;
            strip(text, set.as_ref(), true, true)
        }
        "replace" => {
            let old = text_of(&given.need(0, "old")?, budget)?;
            let new = text_of(&given.need(1, "new")?, budget)?;
            let count = given.int(2, "count")?.unwrap_or(-1);
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            replace(text, [&old, &new], count, budget)?
        }
        "title" => title(text, budget)?,
        "center" => {
            let width = given.int(0, "width")?.unwrap_or(80).max(0);
            let missing = usize::try_from(width)
                .unwrap_or(usize::MAX)
                .saturating_sub(text.len());
            budget.make::<Letter>(text.len().saturating_add(missing))?;
            let left = missing / 2 + (missing & (text.len() + missing) & 1);
            let blank = |count: usize| std::iter::repeat_n(Letter::own(' '), count);
            let all = blank(left).chain(text.letters().iter().copied());
            all.chain(blank(missing - left)).collect()
        }
        "indent" => indent(text, &mut given, budget)?,
        "truncate" => truncate(text, &mut given, budget)?,
        "wordcount" => {
            let mut words = 0;
            let mut within = false;
            for character in text.chars() {
                let is_part = is_word(character);
                words += i128::from(is_part && !within);
                within = is_part;
            }
            given.finish()?;
            return Ok(Value::Int(words));
        }
        "urlencode" => urlencode(value, text, budget)?,
        "xmlattr" => xmlattr(value, &mut given, budget)?,
        _ => escaped(text, budget)?,
    };
    given.finish()?;
    Ok(Value::Text(made))
}

/// Each word begins with a capital, followed by small letters.
fn title(text: &Text, budget: &mut Budget) -> Made<Text> {
    budget.make::<Letter>(text.len())?;
    let mut made = Vec::new();
    let mut begins = true;
    for letter in text.letters() {
        let character = letter.character();
        let mapped: Vec<char> = match begins {
            true => character.to_uppercase().collect(),
            false => character.to_lowercase().collect(),
        };
        begins = is_space(character) || matches!(character, '-' | '(' | '{' | '[' | '<');
        made.extend(mapped.into_iter().map(|c| letter.with(c)));
    }
    Ok(made.into())
}

fn indent(text: &Text, given: &mut Given, budget: &mut Budget) -> Made<Text> {
    let width = match given.take(0, "width") {
        None => Text::own("    "),
        Some(Value::Text(width)) => width,
        Some(other) => {
            let wrong = given.wrong("width", "a number or a text", &other);
            let blanks = usize::try_from(other.as_int().ok_or(wrong)?.max(0)).unwrap_or(usize::MAX);
            budget.make::<Letter>(blanks)?;
            Text::own(&" ".repeat(blanks))
        }
    };
    let first = given.flag(1, "first", false);
    let blank = given.flag(2, "blank", false);
    let newline = Text::own("\n");
    let with_end = joined([text, &newline].into_iter(), budget)?;
    let lines = lines(&with_end, false);
    let mut parts: Vec<&Text> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            parts.push(&newline);
        }
        let is_indented = if index == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        if is_indented {
            parts.push(&width);
        }
        parts.push(line);
    }
    joined(parts.into_iter(), budget)
}

fn truncate(text: &Text, given: &mut Given, budget: &mut Budget) -> Made<Text> {
    let length = given.int(0, "length")?.unwrap_or(255);
    let kills_words = given.flag(1, "killwords", false);
    let end = given.text(2, "end")?.unwrap_or_else(|| Text::own("..."));
    let leeway = given.int(3, "leeway")?.unwrap_or(5);
    if length < end.len() as i128 || leeway < 0 {
        return Err(Fault::new(format!(
            "expected length >= {}, got {length}",
            end.len()
        )));
    }
    if text.len() as i128 <= length.saturating_add(leeway) {
        return Ok(text.clone());
    }
    let kept = usize::try_from(length).unwrap_or(usize::MAX) - end.len();
    let cut = text.part(0..kept.min(text.len()));
    let cut = match kills_words {
        true => cut,
        false => {
            let parts = split_from_end(&cut, Some(&Text::own(" ")), 1)?;
            parts.into_iter().next().unwrap_or(cut)
        }
    };
    joined([&cut, &end].into_iter(), budget)
}

fn escaped(text: &Text, budget: &mut Budget) -> Made<Text> {
    budget.make::<Letter>(text.len() * 5)?;
    Ok(text.map_letters(|character| match character {
        '&' => "&amp;".chars().collect::<Vec<char>>(),
        '<' => "&lt;".chars().collect(),
        '>' => "&gt;".chars().collect(),
        '\'' => "&#39;".chars().collect(),
        '"' => "&#34;".chars().collect(),
        other => vec![other],
    }))
}

fn xmlattr(value: &Value, given: &mut Given, budget: &mut Budget) -> Made<Text> {
    let spaced = given.flag(0, "autospace", true);
    let Value::Dict(dict) = value else {
        return Err(Fault::new("xmlattr: a mapping is expected"));
    };
    let mut out = Vec::new();
    for (key, value) in dict.entries() {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let key = text_of(key, budget)?;
        if key
            .chars()
            .any(|c| is_space(c) || matches!(c, '/' | '>' | '='))
        {
            return Err(Fault::new(format!(
                "Invalid character in attribute name: '{key}'"
            )));
        }
        let text = text_of(value, budget)?;
        let is_bare = out.is_empty() && !spaced;
        add(&mut out, if is_bare { "" } else { " " });
        out.extend_from_slice(escaped(&key, budget)?.letters());
        add(&mut out, "=\"");
        out.extend_from_slice(escaped(&text, budget)?.letters());
        add(&mut out, "\"");
    }
    budget.make::<Letter>(out.len())?;
    Ok(out.into())
}

fn urlencode(value: &Value, text: &Text, budget: &mut Budget) -> Made<Text> {
    let pairs = match value {
        Value::Text(_) => return quoted(text, false, budget),
        Value::Dict(dict) => dict.entries().to_vec(),
        Value::List(_) | Value::Tuple(_) => {
            let mut pairs = Vec::new();
            for pair in value.iterate(budget)? {
                let [key, value] = <[Value; 2]>::try_from(pair.iterate(budget)?)
                    .map_err(|_| Fault::new("urlencode: its values are no pairs"))?;
                pairs.push((key, value));
            }
            pairs
        }
        _ => return quoted(text, false, budget),
    };
    let mut parts = Vec::new();
    for (index, (key, value)) in pairs.iter().enumerate() {
        if index > 0 {
            parts.push(Text::own("&"));
        }
        parts.push(quoted(&text_of(key, budget)?, true, budget)?);
        parts.push(Text::own("="));
        parts.push(quoted(&text_of(value, budget)?, true, budget)?);
    }
    joined(parts.iter(), budget)
}

fn quoted(text: &Text, in_query: bool, budget: &mut Budget) -> Made<Text> {
    budget.make::<Letter>(text.len() * 12)?;
    Ok(text.map_letters(|character| match character {
        ' ' if in_query => vec!['+'],
        '/' if !in_query => vec!['/'],
        plain if plain.is_ascii_alphanumeric() => vec![plain],
        '_' | '.' | '-' | '~' => vec![character],
        other => {
            let mut bytes = [0; 4];
            let bytes = other.encode_utf8(&mut bytes).bytes();
            bytes
                .flat_map(|byte| format!("%{byte:02X}").chars().collect::<Vec<_>>())
                .collect()
        }
    }))
}
