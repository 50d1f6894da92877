//! The methods of texts.

use super::budget::Budget;
use super::characters::{is_line_end, is_space};
use super::fault::{Fault, Made};
use super::format;
use super::letters::{Letter, Text};
use super::operators::joined;
use super::text_cases::{cased, is};
use super::value::{Function, Given, Value};

/// Calls a method of a text.
pub fn call(text: &Text, name: Function, mut given: Given, budget: &mut Budget) -> Made<Value> {
    budget.look(text.len())?;
    let value = match name {
        "strip" | "lstrip" | "rstrip" => {
            let set = given.text(0, "chars")?;
            Value::Text(strip(
                text,
                set.as_ref(),
                name != "rstrip",
                name != "lstrip",
            ))
        }
        "split" | "rsplit" | "splitlines" | "partition" | "rpartition" => {
            parts(text, name, &mut given, budget)?
        }
        "startswith" | "endswith" => {
            let wanted = given.need(0, "prefix")?;
            let range = range(text, &mut given)?;
            Value::Bool(begins(text, &wanted, range, name == "startswith", &given)?)
        }
        "removeprefix" | "removesuffix" => {
            let part = given.need_text(0, "prefix")?;
            let length = text.len();
            Value::Text(match name {
                "removeprefix" if text.starts_with(&part) => text.part(part.len()..length),
                "removesuffix" if text.ends_with(&part) => text.part(0..length - part.len()),
                _ => text.clone(),
            })
        }
        "replace" => {
            let (old, new) = (given.need_text(0, "old")?, given.need_text(1, "new")?);
            let count = given.int(2, "count")?.unwrap_or(-1);
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            Value::Text(replace(text, [&old, &new], count, budget)?)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let part = given.need_text(0, "sub")?;
            let range = range(text, &mut given)?;
            Value::Int(search(text, &part, range, name)?)
        }
        "join" => {
            let parts = given.need(0, "iterable")?.iterate(budget)?;
            Value::Text(join(text, &parts, budget)?)
        }
        "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => {
            Value::Text(padded(text, name, &mut given, budget)?)
        }
        "format" | "format_map" => Value::Text(formatted(text, name, &mut given, budget)?),
        "lower" | "upper" | "title" | "capitalize" | "casefold" | "swapcase" => {
            budget.make::<Letter>(text.len())?;
            Value::Text(cased(text, name))
        }
        _ => Value::Bool(is(text, name)),
    };
    given.finish()?;
    Ok(value)
}

fn parts(text: &Text, name: &str, given: &mut Given, budget: &mut Budget) -> Made<Value> {
    // The result is charged to the budget before it is made.
    let mut pay = |parts: usize| {
        budget.make::<Letter>(text.len())?;
        budget.make::<Value>(parts.saturating_add(1).saturating_mul(2))
    };
    if name == "splitlines" {
        let keeps = given.flag(0, "keepends", false);
        pay(text.chars().filter(|c| is_line_end(*c)).count())?;
        return texts(lines(text, keeps));
    }
    if name.ends_with("split") {
        let separator = given.text(0, "sep")?;
        let most = given.int(1, "maxsplit")?.unwrap_or(-1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        pay(match &separator {
            Some(separator) => text.find_all(separator).len(),
            None => text.chars().filter(|c| is_space(*c)).count(),
        })?;
        return texts(match name {
            "split" => split(text, separator.as_ref(), most)?,
            _ => split_from_end(text, separator.as_ref(), most)?,
        });
    }
    pay(3)?;
    let separator = given.need_text(0, "sep")?;
    if separator.is_empty() {
        return Err(Fault::new("empty separator"));
    }
    let (at, is_first) = match name {
        "partition" => (text.find(&separator), true),
        _ => (text.find_last(&separator), false),
    };
    let empty = || Text::own("");
    let parts = match (at, is_first) {
        (Some(at), _) => {
            let end = at + separator.len();
            [
                text.part(0..at),
                text.part(at..end),
                text.part(end..text.len()),
            ]
        }
        (None, true) => [text.clone(), empty(), empty()],
        (None, false) => [empty(), empty(), text.clone()],
    };
    Value::tuple(parts.into_iter().map(Value::Text).collect())
}

fn formatted(text: &Text, name: &str, given: &mut Given, budget: &mut Budget) -> Made<Text> {
    if name == "format" {
        let (values, named) = (given.rest(), std::mem::take(&mut given.named));
        return format::format(text, &values, &named, budget);
    }
    let Value::Dict(dict) = given.need(0, "mapping")? else {
        return Err(Fault::new("format_map: its argument has to be a dict"));
    };
    let entry = |(key, value): &(Value, Value)| match key {
        Value::Text(name) => Some((name.to_string(), value.clone())),
        _ => None,
    };
    let named: Vec<(String, Value)> = dict.entries().iter().filter_map(entry).collect();
    format::format(text, &[], &named, budget)
}

/// A list of texts.
fn texts(parts: Vec<Text>) -> Made<Value> {
    Value::list(parts.into_iter().map(Value::Text).collect())
}

/// Removes characters of a set, or white space, from one end or both.
pub fn strip(text: &Text, set: Option<&Text>, start: bool, end: bool) -> Text {
    let set: Option<Vec<char>> = set.map(|set| set.chars().collect());
    let goes = |letter: &Letter| match &set {
        Some(set) => set.contains(&letter.character()),
        None => is_space(letter.character()),
    };
    let letters = text.letters();
    let length = letters.len();
    let first = if start {
        letters.iter().position(|l| !goes(l)).unwrap_or(length)
    } else {
        0
    };
    let kept = if end {
        letters
            .iter()
            .rposition(|l| !goes(l))
            .map_or(0, |at| at + 1)
    } else {
        length
    };
    text.part(first..kept.max(first))
}

/// Parts of a text between separators, or between white space.
pub fn split(text: &Text, separator: Option<&Text>, most: usize) -> Made<Vec<Text>> {
    let mut parts = Vec::new();
    let length = text.len();
    if let Some(separator) = separator {
        if separator.is_empty() {
            return Err(Fault::new("empty separator"));
        }
        let mut start = 0;
        for at in text.find_all(separator).into_iter().take(most) {
            parts.push(text.part(start..at));
            start = at + separator.len();
        }
        parts.push(text.part(start..length));
        return Ok(parts);
    }
    let letters = text.letters();
    let is_gap = |at: usize| is_space(letters[at].character());
    let mut at = 0;
    loop {
        while at < length && is_gap(at) {
            at += 1;
        }
        if at == length {
            return Ok(parts);
        }
        let start = at;
        if parts.len() == most {
            // The rest keeps the white space within it, and that at its end.
            parts.push(text.part(start..length));
            return Ok(parts);
        }
        while at < length && !is_gap(at) {
            at += 1;
        }
        parts.push(text.part(start..at));
    }
}

/// The same, from the end.
pub fn split_from_end(text: &Text, separator: Option<&Text>, most: usize) -> Made<Vec<Text>> {
    let reversed = |text: &Text| -> Text { text.letters().iter().rev().copied().collect() };
    let separator = separator.map(&reversed);
    let parts = split(&reversed(text), separator.as_ref(), most)?;
    Ok(parts.iter().rev().map(reversed).collect())
}

/// The lines of a text.
pub fn lines(text: &Text, keeps_ends: bool) -> Vec<Text> {
    let letters = text.letters();
    let mut lines = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < letters.len() {
        let character = letters[at].character();
        at += 1;
        if !is_line_end(character) {
            continue;
        }
        let line = at - 1;
        if character == '\r' && letters.get(at).is_some_and(|next| next.character() == '\n') {
            at += 1;
        }
        lines.push(text.part(start..if keeps_ends { at } else { line }));
        start = at;
    }
    if start < letters.len() {
        lines.push(text.part(start..letters.len()));
    }
    lines
}

/// `text.replace(old, new, count)`
pub fn replace(
    text: &Text,
    [old, new]: [&Text; 2],
    count: usize,
    budget: &mut Budget,
) -> Made<Text> {
    let places = text.find_all(old);
    let used = places.len().min(count);
    budget.make::<Letter>(text.len().saturating_add(new.len().saturating_mul(used)))?;
    let mut letters = Vec::new();
    let mut start = 0;
    for at in places.into_iter().take(used) {
        letters.extend_from_slice(&text.letters()[start..at]);
        letters.extend_from_slice(new.letters());
        start = at + old.len();
    }
    letters.extend_from_slice(&text.letters()[start..]);
    Ok(letters.into())
}

fn join(separator: &Text, parts: &[Value], budget: &mut Budget) -> Made<Text> {
    let mut pieces = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let Value::Text(part) = part else {
            let kind = part.kind();
            return Err(Fault::new(format!(
                "join: item {index} is no text but {kind}"
            )));
        };
        if index > 0 {
            pieces.push(separator);
        }
        pieces.push(part);
    }
    joined(pieces.iter().copied(), budget)
}

/// The part of a text that the arguments `start` and `end` select; `None` where it begins beyond
/// the end.
fn range(text: &Text, given: &mut Given) -> Made<Option<std::ops::Range<usize>>> {
    let length = text.len() as i128;
    let place = |at: i128| {
        let at = if at < 0 { (at + length).max(0) } else { at };
        usize::try_from(at).unwrap_or(usize::MAX)
    };
    let start = given.int(1, "start")?.map_or(0, place);
    let end = given
        .int(2, "end")?
        .map_or(text.len(), place)
        .min(text.len());
    Ok((start <= end).then_some(start..end))
}

fn begins(
    text: &Text,
    wanted: &Value,
    range: Option<std::ops::Range<usize>>,
    at_start: bool,
    given: &Given,
) -> Made<bool> {
    let Some(range) = range else {
        return Ok(false);
    };
    let text = text.part(range);
    let one = |wanted: &Value| match wanted {
        Value::Text(wanted) if at_start => Ok(text.starts_with(wanted)),
        Value::Text(wanted) => Ok(text.ends_with(wanted)),
        other => Err(given.wrong("prefix", "a text or a tuple of texts", other)),
    };
    match wanted {
        Value::Tuple(list) => {
            for wanted in list.items() {
                if one(wanted)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        wanted => one(wanted),
    }
}

fn search(
    text: &Text,
    part: &Text,
    range: Option<std::ops::Range<usize>>,
    name: &str,
) -> Made<i128> {
    let start = range.as_ref().map_or(0, |range| range.start);
    let within = range.map(|range| text.part(range));
    let found = |at: Option<usize>| at.map_or(-1, |at| (at + start) as i128);
    let at = match (name, &within) {
        ("count", within) => {
            return Ok(within.as_ref().map_or(0, |text| text.find_all(part).len()) as i128);
        }
        (_, None) => -1,
        ("find" | "index", Some(text)) => found(text.find(part)),
        (_, Some(text)) => found(text.find_last(part)),
    };
    match at < 0 && name.ends_with("index") {
        true => Err(Fault::new("substring not found")),
        false => Ok(at),
    }
}

fn padded(text: &Text, name: &str, given: &mut Given, budget: &mut Budget) -> Made<Text> {
    let width = given.int(
        0,
        if name == "expandtabs" {
            "tabsize"
        } else {
            "width"
        },
    )?;
    if name == "expandtabs" {
        return expanded(text, width.unwrap_or(8), budget);
    }
    let width = width.ok_or_else(|| Fault::new(format!("{name}: the width is missing")))?;
    let fill = match name {
        "zfill" => Letter::own('0'),
        _ => {
            let fill = given.text(1, "fillchar")?.unwrap_or_else(|| Text::own(" "));
            let [letter] = fill.letters() else {
                return Err(Fault::new(
                    "the fill character must be exactly one character long",
                ));
            };
            *letter
        }
    };
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let missing = width.saturating_sub(text.len());
    budget.make::<Letter>(text.len().saturating_add(missing))?;
    let left = match name {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let fills = |count: usize| std::iter::repeat_n(fill, count);
    let letters = text.letters();
    let sign = usize::from(name == "zfill" && matches!(text.chars().next(), Some('+' | '-')));
    let (sign, rest) = letters.split_at(sign);
    let all = sign
        .iter()
        .copied()
        .chain(fills(left))
        .chain(rest.iter().copied());
    Ok(all.chain(fills(missing - left)).collect())
}

fn expanded(text: &Text, size: i128, budget: &mut Budget) -> Made<Text> {
    let size = usize::try_from(size.max(0)).unwrap_or(usize::MAX);
    let mut letters = Vec::new();
    let mut column = 0;
    for letter in text.letters() {
        match letter.character() {
            '\t' if size > 0 => {
                let blanks = size - column % size;
                budget.make::<Letter>(blanks)?;
                letters.extend(std::iter::repeat_n(letter.with(' '), blanks));
                column += blanks;
            }
            '\t' => {}
            character => {
                letters.push(*letter);
                column = if matches!(character, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
            }
        }
    }
    budget.make::<Letter>(letters.len())?;
    Ok(letters.into())
}
