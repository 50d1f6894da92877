//! Values as Python's `str` and `repr` spell them.

use super::budget::Budget;
use super::characters::is_printable;
use super::fault::{Fault, Made};
use super::letters::{Letter, Text};
use super::value::{Dict, Value};

/// `str(value)`
pub fn text_of(value: &Value, budget: &mut Budget) -> Made<Text> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Undefined(_) => Ok(Text::own("")),
        other => repr(other, budget),
    }
}

/// `repr(value)`
pub fn repr(value: &Value, budget: &mut Budget) -> Made<Text> {
    let mut letters = Vec::new();
    spell(value, &mut letters, budget)?;
    Ok(letters.into())
}

/// Adds the template's own text.
pub fn add(letters: &mut Vec<Letter>, text: &str) {
    letters.extend(text.chars().map(Letter::own));
}

fn spell(value: &Value, out: &mut Vec<Letter>, budget: &mut Budget) -> Made<()> {
    let before = out.len();
    match value {
        Value::Undefined(_) => add(out, "Undefined"),
        Value::None => add(out, "None"),
        Value::Bool(true) => add(out, "True"),
        Value::Bool(false) => add(out, "False"),
        Value::Int(number) => add(out, &number.to_string()),
        Value::Float(float) => add(out, &float_text(*float)),
        Value::Text(text) => quoted(text, out),
        Value::List(list) => listed(list.items(), ["[", "]"], out, budget)?,
        Value::Tuple(list) => {
            let end = if list.items().len() == 1 { ",)" } else { ")" };
            listed(list.items(), ["(", end], out, budget)?;
        }
        Value::Dict(dict) => entries(dict, out, budget)?,
        Value::View(view) if view.is_range => add(out, &view.name),
        Value::View(view) => {
            add(out, &view.name);
            listed(&view.items, ["([", "])"], out, budget)?;
        }
        Value::Namespace(_)
        | Value::Loop(_)
        | Value::Macro(_)
        | Value::Once(_)
        | Value::Method(_)
        | Value::Function(_)
        | Value::Callable(_) => {
            let kind = value.kind();
            let reason = format!("a {kind} is no text: give its values out one by one");
            return Err(Fault::new(reason));
        }
    }
    // Of lists, what stands in them has been counted already, and is counted twice.
    budget.make::<Letter>(out.len() - before)
}

fn listed(
    items: &[Value],
    brackets: [&str; 2],
    out: &mut Vec<Letter>,
    budget: &mut Budget,
) -> Made<()> {
    add(out, brackets[0]);
    for (index, item) in items.iter().enumerate() {
        add(out, if index > 0 { ", " } else { "" });
        spell(item, out, budget)?;
    }
    add(out, brackets[1]);
    Ok(())
}

fn entries(dict: &Dict, out: &mut Vec<Letter>, budget: &mut Budget) -> Made<()> {
    add(out, "{");
    for (index, (key, value)) in dict.entries().iter().enumerate() {
        add(out, if index > 0 { ", " } else { "" });
        spell(key, out, budget)?;
        add(out, ": ");
        spell(value, out, budget)?;
    }
    add(out, "}");
    Ok(())
}

/// A text in quotes: single ones, unless it has some and no double ones.
fn quoted(text: &Text, out: &mut Vec<Letter>) {
    let has = |quote: char| text.chars().any(|character| character == quote);
    let quote = if has('\'') && !has('"') { '"' } else { '\'' };
    out.push(Letter::own(quote));
    for letter in text.letters() {
        let character = letter.character();
        let code = u32::from(character);
        let escaped = match character {
            '\\' => "\\\\".to_string(),
            '\n' => "\\n".to_string(),
            '\r' => "\\r".to_string(),
            '\t' => "\\t".to_string(),
            own if own == quote => format!("\\{quote}"),
            shown if is_printable(shown) => {
                out.push(*letter);
                continue;
            }
            _ if code < 0x100 => format!("\\x{code:02x}"),
            _ if code < 0x1_0000 => format!("\\u{code:04x}"),
            _ => format!("\\U{code:08x}"),
        };
        let letters = escaped.chars();
        out.extend(letters.map(|c| letter.with(c)));
    }
    out.push(Letter::own(quote));
}

/// A number as Python spells it.
pub fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    let spelt = format!("{value:e}");
    let (digits, exponent) = spelt.split_once('e').unwrap_or((&spelt, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
