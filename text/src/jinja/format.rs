//! `text.format(..)`

use super::attributes;
use super::budget::Budget;
use super::fault::{Fault, Made};
use super::letters::{Letter, Text};
use super::numbers::{WIDTH_MAX, float, integer};
use super::print::{float_text, repr, text_of};
use super::value::Value;

/// The values of a format's fields.
struct Fields<'a> {
    values: &'a [Value],
    named: &'a [(String, Value)],
    next: usize,
}

/// `text.format(*values, **named)`
pub fn format(
    text: &Text,
    values: &[Value],
    named: &[(String, Value)],
    budget: &mut Budget,
) -> Made<Text> {
    let mut fields = Fields {
        values,
        named,
        next: 0,
    };
    let mut out = Vec::new();
    let letters = text.letters();
    let is = |at: usize, wanted: char| letters.get(at).is_some_and(|l| l.character() == wanted);
    let mut at = 0;
    while let Some(letter) = letters.get(at) {
        let character = letter.character();
        if !matches!(character, '{' | '}') {
            out.push(*letter);
            at += 1;
        } else if is(at + 1, character) {
            out.push(*letter);
            at += 2;
        } else if character == '}' {
            return Err(Fault::new("Single '}' encountered in format string"));
        } else {
            let rest = &letters[at + 1..];
            let end = rest.iter().position(|letter| letter.character() == '}');
            let end = end.ok_or_else(|| Fault::new("expected '}' before end of string"))?;
            let field: String = rest[..end]
                .iter()
                .map(|letter| letter.character())
                .collect();
            if field.contains('{') {
                return Err(Fault::new(
                    "fields within fields of a format are not supported",
                ));
            }
            let made = fields.field(&field, budget)?;
            budget.make::<Letter>(made.len())?;
            out.extend_from_slice(made.letters());
            at += end + 2;
        }
    }
    budget.make::<Letter>(letters.len())?;
    Ok(out.into())
}

impl Fields<'_> {
    fn field(&mut self, field: &str, budget: &mut Budget) -> Made<Text> {
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (name, None),
        };
        let value = self.value(name)?;
        let value = match conversion {
            None => value,
            Some("s") => Value::Text(text_of(&value, budget)?),
            Some("r") => Value::Text(repr(&value, budget)?),
            Some(other) => {
                return Err(Fault::new(format!(
                    "the conversion '!{other}' is not supported"
                )));
            }
        };
        spelt(&value, spec, budget)
    }

    fn value(&mut self, name: &str) -> Made<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let missing = || Fault::new(format!("the format's field '{first}' has no value"));
        let mut value = match first.parse::<usize>() {
            _ if first.is_empty() => {
                self.next += 1;
                self.values.get(self.next - 1)
            }
            Ok(index) => self.values.get(index),
            Err(_) => {
                let found = self.named.iter().find(|(known, _)| known == first);
                found.map(|(_, value)| value)
            }
        }
        .cloned()
        .ok_or_else(missing)?;
        while !rest.is_empty() {
            let (found, behind) = if let Some(inner) = rest.strip_prefix('[') {
                let inner = inner.split_once(']');
                let (key, behind) =
                    inner.ok_or_else(|| Fault::new("Missing ']' in format string"))?;
                let found = match &value {
                    Value::Dict(dict) => dict.named(key).cloned(),
                    Value::List(list) | Value::Tuple(list) => {
                        let index = key.parse::<usize>().ok();
                        index.and_then(|index| list.items().get(index).cloned())
                    }
                    _ => None,
                };
                (found, behind)
            } else {
                let inner = &rest[1..];
                let end = inner.find(['.', '[']).unwrap_or(inner.len());
                (attributes::attribute(&value, &inner[..end]), &inner[end..])
            };
            value = found.ok_or_else(missing)?;
            rest = behind;
        }
        Ok(value)
    }
}

/// `[[fill]align][sign][#][0][width][,][.precision][kind]`
struct Spec {
    fill: char,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

fn parsed(spec: &str) -> Made<Spec> {
    let wrong = || Fault::new(format!("the format '{spec}' is not supported"));
    let mut rest: Vec<char> = spec.chars().rev().collect();
    let is_align = |character: Option<&char>| matches!(character, Some('<' | '>' | '=' | '^'));
    let length = rest.len();
    let mut made = Spec {
        fill: ' ',
        align: None,
        sign: None,
        alternate: false,
        width: 0,
        group: None,
        precision: None,
        kind: None,
    };
    if length > 1 && is_align(rest.get(length - 2)) {
        made.fill = rest.pop().unwrap_or(' ');
        made.align = rest.pop();
    } else if is_align(rest.last()) {
        made.align = rest.pop();
    }
    if matches!(rest.last(), Some('+' | '-' | ' ')) {
        made.sign = rest.pop();
    }
    made.alternate = rest.pop_if(|last| *last == '#').is_some();
    if rest.last() == Some(&'0') {
        rest.pop();
        if made.align.is_none() {
            (made.fill, made.align) = ('0', Some('='));
        }
    }
    let number = |rest: &mut Vec<char>| {
        let mut number = None;
        while let Some(digit) = rest.last().and_then(|last| last.to_digit(10)) {
            rest.pop();
            number = Some((number.unwrap_or(0) * 10 + digit as usize).min(1 << 30));
        }
        number
    };
    made.width = number(&mut rest).unwrap_or(0);
    made.group = rest.pop_if(|last| matches!(last, ',' | '_'));
    if rest.pop_if(|last| *last == '.').is_some() {
        made.precision = Some(number(&mut rest).ok_or_else(wrong)?);
    }
    made.kind = rest.pop();
    if !rest.is_empty() || made.width > WIDTH_MAX || made.precision.unwrap_or(0) > WIDTH_MAX {
        return Err(wrong());
    }
    Ok(made)
}

fn spelt(value: &Value, text: &str, budget: &mut Budget) -> Made<Text> {
    if text.is_empty() {
        return text_of(value, budget);
    }
    let spec = parsed(text)?;
    let wrong = || {
        let kind = value.kind();
        Fault::new(format!("the format '{text}' is not for {kind}"))
    };
    let (sign, body) = match (value, value.as_float()) {
        (Value::Text(text), _) => {
            if !matches!(spec.kind, None | Some('s')) || spec.sign.is_some() {
                return Err(wrong());
            }
            let most = spec.precision.unwrap_or(text.len()).min(text.len());
            (String::new(), text.part(0..most))
        }
        (_, Some(number)) => {
            let (is_negative, digits) = digits(value, number, &spec).ok_or_else(wrong)?;
            let sign = match (is_negative, spec.sign) {
                (true, _) => "-".to_string(),
                (false, Some(sign @ ('+' | ' '))) => sign.to_string(),
                _ => String::new(),
            };
            let mark = match (spec.alternate, spec.kind) {
                (true, Some(kind @ ('x' | 'X' | 'o' | 'b'))) => format!("0{kind}"),
                _ => String::new(),
            };
            (sign + &mark, Text::own(&digits))
        }
        _ => return Err(wrong()),
    };
    let missing = spec.width.saturating_sub(sign.chars().count() + body.len());
    let is_text = matches!(value, Value::Text(_));
    let (before, within, behind) = match spec.align {
        Some('<') => (0, 0, missing),
        Some('^') => (missing / 2, 0, missing - missing / 2),
        Some('=') if !is_text => (0, missing, 0),
        None | Some('=') if is_text => (0, 0, missing),
        _ => (missing, 0, 0),
    };
    let fill = |count: usize| std::iter::repeat_n(Letter::own(spec.fill), count);
    let sign = sign.chars().map(Letter::own);
    let all = fill(before).chain(sign).chain(fill(within));
    Ok(all
        .chain(body.letters().iter().copied())
        .chain(fill(behind))
        .collect())
}

/// Whether a number is negative, and its digits by a format.
fn digits(value: &Value, number: f64, spec: &Spec) -> Option<(bool, String)> {
    let whole = value.as_int();
    let is_negative = number < 0.0 || (number == 0.0 && number.is_sign_negative());
    let digits = match (whole, spec.kind) {
        (Some(whole), None | Some('d')) if spec.precision.is_none() => integer(whole, 'd'),
        (Some(whole), Some(kind @ ('x' | 'X' | 'o' | 'b'))) if spec.precision.is_none() => {
            integer(whole, kind)
        }
        (_, Some(kind @ ('f' | 'F' | 'e' | 'E' | 'g' | 'G'))) => {
            float(number, kind, spec.precision.unwrap_or(6), spec.alternate)
        }
        (_, Some('%')) => float(number * 100.0, 'f', spec.precision.unwrap_or(6), false) + "%",
        (None, None) => match spec.precision {
            None => float_text(number.abs()),
            Some(precision) => {
                let short = float(number, 'g', precision, false);
                let is_whole = !short.contains(['.', 'e', 'n']);
                if is_whole && short.len() < precision {
                    short + ".0"
                } else {
                    short
                }
            }
        },
        _ => return None,
    };
    let Some(group) = spec.group else {
        return Some((is_negative, digits));
    };
    let end = digits
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(digits.len());
    let (front, behind) = digits.split_at(end);
    let size = if matches!(spec.kind, Some('x' | 'X' | 'o' | 'b')) {
        4
    } else {
        3
    };
    let mut grouped = String::new();
    for (index, digit) in front.chars().enumerate() {
        if index > 0 && (front.len() - index) % size == 0 {
            grouped.push(group);
        }
        grouped.push(digit);
    }
    Some((is_negative, grouped + behind))
}
