//! `format % values`

use super::budget::Budget;
use super::fault::{Fault, Made};
use super::letters::{Letter, Text};
use super::numbers::{WIDTH_MAX, float, integer};
use super::print::{repr, text_of};
use super::value::Value;

/// What stands between `%` and the letter.
#[derive(Default)]
struct Spec {
    left: bool,
    sign: Option<char>,
    alternate: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
}

struct Values<'a> {
    all: Vec<Value>,
    used: usize,
    whole: &'a Value,
}

impl Values<'_> {
    fn next(&mut self) -> Made<Value> {
        let value = self.all.get(self.used).cloned();
        self.used += 1;
        value.ok_or_else(|| Fault::new("not enough arguments for format string"))
    }

    fn named(&self, name: &str) -> Made<Value> {
        let Value::Dict(dict) = self.whole else {
            return Err(Fault::new("format requires a mapping"));
        };
        let value = dict.named(name).cloned();
        value.ok_or_else(|| Fault::new(format!("the format's '{name}' is missing")))
    }
}

/// `format % values`
pub fn percent(format: &Text, values: &Value, budget: &mut Budget) -> Made<Value> {
    let mut given = Values {
        all: match values {
            Value::Tuple(list) => list.items().to_vec(),
            other => vec![other.clone()],
        },
        used: 0,
        whole: values,
    };
    let mut out: Vec<Letter> = Vec::new();
    let letters = format.letters();
    let mut at = 0;
    let mut has_names = false;
    while let Some(letter) = letters.get(at) {
        at += 1;
        if letter.character() != '%' {
            out.push(*letter);
            continue;
        }
        let mut name = None;
        if let Some(end) = name_end(letters, at) {
            name = Some(format.part(at + 1..end).to_string());
            has_names = true;
            at = end + 1;
        }
        let spec = spec(letters, &mut at, &mut given)?;
        let Some(kind) = letters.get(at).map(|letter| letter.character()) else {
            return Err(Fault::new("incomplete format"));
        };
        at += 1;
        if kind == '%' {
            out.push(Letter::own('%'));
            continue;
        }
        let value = match &name {
            Some(name) => given.named(name)?,
            None => given.next()?,
        };
        let (sign, body) = spelt(&value, kind, &spec, budget)?;
        let padding = spec.width.saturating_sub(sign.chars().count() + body.len());
        budget.make::<Letter>(body.len() + padding)?;
        let zeros = spec.zeros && !spec.left && !matches!(kind, 's' | 'r' | 'c');
        let fill = |character| std::iter::repeat_n(Letter::own(character), padding);
        let sign = sign.chars().map(Letter::own);
        match (spec.left, zeros) {
            (true, _) => out.extend(sign.chain(body.letters().iter().copied()).chain(fill(' '))),
            (_, true) => out.extend(sign.chain(fill('0')).chain(body.letters().iter().copied())),
            _ => out.extend(fill(' ').chain(sign).chain(body.letters().iter().copied())),
        }
    }
    budget.make::<Letter>(letters.len())?;
    let is_mapping = matches!(values, Value::Dict(_)) || has_names;
    if given.used < given.all.len() && !is_mapping {
        return Err(Fault::new(
            "not all arguments converted during string formatting",
        ));
    }
    Ok(Value::Text(out.into()))
}

/// Where `(name)` ends, if it stands here.
fn name_end(letters: &[Letter], at: usize) -> Option<usize> {
    if letters.get(at)?.character() != '(' {
        return None;
    }
    let length = letters[at..]
        .iter()
        .position(|letter| letter.character() == ')')?;
    Some(at + length)
}

fn spec(letters: &[Letter], at: &mut usize, given: &mut Values) -> Made<Spec> {
    let mut spec = Spec::default();
    let here = |at: usize| letters.get(at).map(|letter| letter.character());
    while let Some(flag @ ('-' | '+' | ' ' | '#' | '0')) = here(*at) {
        match flag {
            '-' => spec.left = true,
            '+' => spec.sign = Some('+'),
            ' ' => spec.sign = spec.sign.or(Some(' ')),
            '#' => spec.alternate = true,
            _ => spec.zeros = true,
        }
        *at += 1;
    }
    let mut number = |at: &mut usize| -> Made<i128> {
        if here(*at) == Some('*') {
            *at += 1;
            let value = given.next()?.as_int();
            return value.ok_or_else(|| Fault::new("* wants int"));
        }
        let mut value = 0;
        while let Some(digit) = here(*at).and_then(|c| c.to_digit(10)) {
            value = (value * 10 + i128::from(digit)).min(1 << 40);
            *at += 1;
        }
        Ok(value)
    };
    let width = number(at)?;
    spec.left |= width < 0;
    let mut sizes = vec![width.unsigned_abs()];
    if here(*at) == Some('.') {
        *at += 1;
        let precision = number(at)?.max(0).unsigned_abs();
        sizes.push(precision);
        spec.precision = usize::try_from(precision).ok();
    }
    if sizes.iter().any(|size| *size > WIDTH_MAX as u128) {
        return Err(Fault::new(format!(
            "a format asks for more than {WIDTH_MAX} columns"
        )));
    }
    spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(0);
    while matches!(here(*at), Some('h' | 'l' | 'L')) {
        *at += 1;
    }
    Ok(spec)
}

/// The sign, with the mark of a base, and the text of a value.
fn spelt(value: &Value, kind: char, spec: &Spec, budget: &mut Budget) -> Made<(String, Text)> {
    let cut = |text: Text| match spec.precision {
        Some(most) if most < text.len() => text.part(0..most),
        _ => text,
    };
    let sign = |is_negative: bool| match (is_negative, spec.sign) {
        (true, _) => "-".to_string(),
        (false, sign) => sign.map(String::from).unwrap_or_default(),
    };
    let number = || {
        Fault::new(format!(
            "%{kind} format: a number is required, not {}",
            value.kind()
        ))
    };
    match kind {
        's' => Ok((String::new(), cut(text_of(value, budget)?))),
        'r' => Ok((String::new(), cut(repr(value, budget)?))),
        'c' => match value {
            Value::Text(text) if text.len() == 1 => Ok((String::new(), text.clone())),
            _ => {
                let code = value.as_int().and_then(|code| u32::try_from(code).ok());
                let character = code.and_then(char::from_u32).ok_or_else(number)?;
                Ok((String::new(), Text::own(&character.to_string())))
            }
        },
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let truncated = |value: f64| (value.is_finite()).then_some(value.trunc() as i128);
            let is_decimal = matches!(kind, 'd' | 'i' | 'u');
            let whole = match (value.as_int(), value) {
                (Some(whole), _) => Some(whole),
                (None, Value::Float(float)) if is_decimal => truncated(*float),
                _ => None,
            };
            let whole = whole.ok_or_else(number)?;
            let mark = match (spec.alternate, kind) {
                (true, 'x') => "0x",
                (true, 'X') => "0X",
                (true, 'o') => "0o",
                _ => "",
            };
            let digits = integer(whole, kind);
            let zeros = spec.precision.unwrap_or(0).saturating_sub(digits.len());
            let digits = "0".repeat(zeros) + &digits;
            Ok((sign(whole < 0) + mark, Text::own(&digits)))
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let value = value.as_float().ok_or_else(number)?;
            let digits = float(value, kind, spec.precision.unwrap_or(6), spec.alternate);
            Ok((
                sign(value.is_sign_negative() && !value.is_nan()),
                Text::own(&digits),
            ))
        }
        other => Err(Fault::new(format!(
            "unsupported format character '{other}'"
        ))),
    }
}
