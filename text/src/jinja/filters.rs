//! Filters, by their names.

use super::fault::{Fault, Made};
use super::json::tojson;
use super::letters::Text;
use super::numbers::rounded;
use super::operators::{binary, joined};
use super::percent::percent;
use super::print::text_of;
use super::run::Rendering;
use super::syntax::Binary;
use super::text_filters;
use super::value::{Dict, Given, Value};

/// Filters of Jinja that are not supported: each needs a part of Python that no known chat template
/// uses, or gives another text each time.
const REFUSED: [&str; 6] = [
    "filesizeformat",
    "pprint",
    "random",
    "striptags",
    "urlize",
    "wordwrap",
];

impl Rendering {
    /// Applies the filter that the arguments are for.
    pub fn apply(&mut self, value: Value, mut given: Given) -> Made<Value> {
        let name = given.name.clone();
        self.budget.steps(1)?;
        let made = match name.as_str() {
            "default" | "d" => {
                let default = given
                    .take(0, "default_value")
                    .unwrap_or_else(|| Value::own(""));
                let any_false = given.flag(1, "boolean", false);
                let is_missing = matches!(value, Value::Undefined(_));
                match is_missing || (any_false && !value.is_true()) {
                    true => default,
                    false => value,
                }
            }
            "tojson" => return tojson(&value, given, &mut self.budget),
            "length" | "count" => Value::Int(value.length()? as i128),
            "list" => Value::list(value.iterate(&mut self.budget)?)?,
            "string" => Value::Text(text_of(&value, &mut self.budget)?),
            "safe" => value,
            "abs" => match (&value, value.as_int()) {
                (_, Some(number)) => Value::Int(number.saturating_abs()),
                (Value::Float(float), None) => Value::Float(float.abs()),
                (other, None) => {
                    let kind = other.kind();
                    return Err(Fault::new(format!("bad operand type for abs(): '{kind}'")));
                }
            },
            "int" => self.int(&value, &mut given)?,
            "float" => {
                let default = given.take(0, "default").unwrap_or(Value::Float(0.0));
                number(&value).map_or(default, Value::Float)
            }
            "round" => round(&value, &mut given)?,
            "attr" => {
                let name = given.need_text(0, "name")?.to_string();
                match &value {
                    // Not the entries of a dict: these are no attributes.
                    Value::Dict(_) => super::attributes::attribute(&value, &name)
                        .unwrap_or_else(|| Value::undefined(format!("no attribute '{name}'"))),
                    other => self.attribute(other, &name)?,
                }
            }
            "format" => self.format(&value, &mut given)?,
            "items" => self.items(&value)?,
            "join" => self.join(&value, &mut given)?,
            name if REFUSED.contains(&name) => {
                return Err(Fault::new(format!("the filter '{name}' is not supported")));
            }
            name if text_filters::NAMES.contains(&name) => {
                let text = text_of(&value, &mut self.budget)?;
                return text_filters::apply(&text, &value, given, &mut self.budget);
            }
            _ => return self.apply_to_many(value, given),
        };
        given.finish()?;
        Ok(made)
    }

    fn format(&mut self, value: &Value, given: &mut Given) -> Made<Value> {
        let (values, named) = (given.rest(), std::mem::take(&mut given.named));
        let format = text_of(value, &mut self.budget)?;
        let values = match (values.is_empty(), named.is_empty()) {
            (false, false) => {
                return Err(Fault::new("can't handle positional and keyword arguments"));
            }
            (true, false) => {
                let entry = |(name, value): (String, Value)| (Value::own(&name), value);
                Value::Dict(Dict::new(named.into_iter().map(entry).collect())?)
            }
            _ => Value::tuple(values)?,
        };
        percent(&format, &values, &mut self.budget)
    }

    fn items(&mut self, value: &Value) -> Made<Value> {
        let dict = match value {
            Value::Undefined(_) => return Ok(Value::once(Vec::new())),
            Value::Dict(dict) => dict,
            _ => return Err(Fault::new("Can only get item pairs from a mapping.")),
        };
        self.budget.make::<(Value, Value)>(dict.entries().len())?;
        let entries = dict.entries().iter();
        let pairs = entries.map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
        Ok(Value::once(pairs.collect::<Made<_>>()?))
    }

    fn int(&mut self, value: &Value, given: &mut Given) -> Made<Value> {
        let default = given.take(0, "default").unwrap_or(Value::Int(0));
        let base = given.int(1, "base")?.unwrap_or(10);
        let whole = match value {
            Value::Text(text) => whole(&text.to_string(), base)?,
            Value::Float(float) if float.is_finite() => Some(float.trunc() as i128),
            other => other.as_int(),
        };
        let rounded = || {
            number(value)
                .filter(|float| float.is_finite())
                .map(|f| f.trunc() as i128)
        };
        Ok(whole.or_else(rounded).map_or(default, Value::Int))
    }

    fn join(&mut self, value: &Value, given: &mut Given) -> Made<Value> {
        let separator = given.take(0, "d").unwrap_or_else(|| Value::own(""));
        let separator = text_of(&separator, &mut self.budget)?;
        let attribute = given.take(1, "attribute");
        let mut pieces: Vec<Text> = Vec::new();
        for (index, item) in value.iterate(&mut self.budget)?.into_iter().enumerate() {
            let item = match &attribute {
                None | Some(Value::None) => item,
                Some(attribute) => self.looked_up(&item, attribute, None)?,
            };
            if index > 0 {
                pieces.push(separator.clone());
            }
            pieces.push(text_of(&item, &mut self.budget)?);
        }
        joined(pieces.iter(), &mut self.budget).map(Value::Text)
    }

    /// What an attribute of filters names, such as `a.b.0`.
    pub fn looked_up(
        &mut self,
        value: &Value,
        attribute: &Value,
        default: Option<&Value>,
    ) -> Made<Value> {
        let parts = match attribute {
            Value::Text(path) => {
                let path = path.to_string();
                let part = |part: &str| match part.parse::<u32>() {
                    Ok(index) => Value::Int(index.into()),
                    Err(_) => Value::own(part),
                };
                path.split('.').map(part).collect()
            }
            other => vec![other.clone()],
        };
        let mut found = value.clone();
        for part in parts {
            found = self.item(&found, &part)?;
            if let (Value::Undefined(_), Some(default)) = (&found, default) {
                found = default.clone();
            }
        }
        Ok(found)
    }
}

/// `float(value)`, or `None`.
fn number(value: &Value) -> Option<f64> {
    let Value::Text(text) = value else {
        return value.as_float();
    };
    let plain = text.to_string();
    let plain = plain.trim_matches(super::characters::is_space);
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let characters: Vec<char> = plain.chars().collect();
    let joins = |at: usize| {
        is_digit(at.checked_sub(1).map(|at| characters[at]))
            && is_digit(characters.get(at + 1).copied())
    };
    let stray = (0..characters.len()).any(|at| characters[at] == '_' && !joins(at));
    if stray {
        return None;
    }
    plain.replace('_', "").parse().ok()
}

/// `int(text, base)`, or `None`.
fn whole(text: &str, base: i128) -> Made<Option<i128>> {
    let base = u32::try_from(base)
        .ok()
        .filter(|base| *base == 0 || (2..=36).contains(base));
    let base = base.ok_or_else(|| Fault::new("int() base must be >= 2 and <= 36, or 0"))?;
    let text = text.trim_matches(super::characters::is_space);
    let (is_negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let marked = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter();
    let mut marked = marked.filter(|(_, own)| base == *own || base == 0);
    let found = marked.find_map(|(mark, own)| Some((lower.strip_prefix(mark)?, own)));
    let (digits, base) = match found {
        Some((rest, own)) => (rest.strip_prefix('_').unwrap_or(rest), own),
        None => (lower.as_str(), if base == 0 { 10 } else { base }),
    };
    let is_wrong =
        digits.starts_with(['_', '+', '-']) || digits.ends_with('_') || digits.contains("__");
    let value = i128::from_str_radix(&digits.replace('_', ""), base).ok();
    let value = value.filter(|_| !is_wrong);
    Ok(value.map(|value| if is_negative { -value } else { value }))
}

fn round(value: &Value, given: &mut Given) -> Made<Value> {
    let precision = given.int(0, "precision")?.unwrap_or(0);
    let method = given.text(1, "method")?.map(|method| method.to_string());
    let Some(float) = value.as_float() else {
        let kind = value.kind();
        return Err(Fault::new(format!("a {kind} cannot be rounded")));
    };
    let up = match method.as_deref() {
        None | Some("common") => {
            return match value.as_int() {
                Some(whole) if precision >= 0 => Ok(Value::Int(whole)),
                _ => rounded(float, precision).map(Value::Float),
            };
        }
        Some("ceil") => true,
        Some("floor") => false,
        Some(_) => return Err(Fault::new("method must be common, ceil or floor")),
    };
    let power = binary(
        Binary::Power,
        &Value::Int(10),
        &Value::Int(precision.clamp(-30, 30)),
        &mut super::budget::Budget::default(),
    )?;
    let power = power.as_float().unwrap_or(1.0);
    let scaled = float * power;
    let whole = if up { scaled.ceil() } else { scaled.floor() };
    Ok(Value::Float(whole / power))
}
