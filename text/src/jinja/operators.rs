//! Operators on values, as Python has them.

use std::cmp::Ordering;

use super::budget::Budget;
use super::fault::{Fault, Made};
use super::letters::{Letter, Text};
use super::percent::percent;
use super::syntax::{Binary, Comparison};
use super::value::Value;

/// `left OP right`
pub fn binary(operator: Binary, left: &Value, right: &Value, budget: &mut Budget) -> Made<Value> {
    if let Value::Undefined(reason) = left {
        return Err(Fault::new(&**reason));
    }
    if operator == Binary::Remainder
        && let Value::Text(format) = left
    {
        return percent(format, right, budget);
    }
    if let Value::Undefined(reason) = right {
        return Err(Fault::new(&**reason));
    }
    match (operator, left, right) {
        (Binary::Add, Value::Text(left), Value::Text(right)) => {
            joined([left, right].into_iter(), budget).map(Value::Text)
        }
        (Binary::Add, Value::List(a), Value::List(b)) => {
            budget.make::<Value>(a.items().len() + b.items().len())?;
            Value::list([a.items(), b.items()].concat())
        }
        (Binary::Add, Value::Tuple(a), Value::Tuple(b)) => {
            budget.make::<Value>(a.items().len() + b.items().len())?;
            Value::tuple([a.items(), b.items()].concat())
        }
        (Binary::Multiply, many, times)
            if many.as_float().is_none() && times.as_int().is_some() =>
        {
            repeated(many, times.as_int().unwrap_or(0), budget)
        }
        (Binary::Multiply, times, many)
            if many.as_float().is_none() && times.as_int().is_some() =>
        {
            repeated(many, times.as_int().unwrap_or(0), budget)
        }
        _ => match (left.as_int(), right.as_int()) {
            (Some(a), Some(b)) => integers(operator, a, b),
            _ => match (left.as_float(), right.as_float()) {
                (Some(a), Some(b)) => floats(operator, a, b),
                _ => Err(unsupported(operator, left, right)),
            },
        },
    }
}

fn unsupported(operator: Binary, left: &Value, right: &Value) -> Fault {
    let sign = match operator {
        Binary::Add => "+",
        Binary::Subtract => "-",
        Binary::Multiply => "*",
        Binary::Divide => "/",
        Binary::FloorDivide => "//",
        Binary::Remainder => "%",
        Binary::Power => "**",
    };
    let (left, right) = (left.kind(), right.kind());
    Fault::new(format!(
        "unsupported operand types for {sign}: '{left}' and '{right}'"
    ))
}

/// Texts joined, one after the other.
pub fn joined<'a>(
    parts: impl Iterator<Item = &'a Text> + Clone,
    budget: &mut Budget,
) -> Made<Text> {
    budget.make::<Letter>(parts.clone().map(Text::len).sum())?;
    Ok(parts
        .flat_map(|part| part.letters().iter().copied())
        .collect())
}

fn repeated(many: &Value, times: i128, budget: &mut Budget) -> Made<Value> {
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match many {
        Value::Text(text) => {
            budget.make::<Letter>(text.len().saturating_mul(times))?;
            let times = if text.is_empty() { 0 } else { times };
            Ok(Value::Text(text.letters().repeat(times).into()))
        }
        Value::List(list) | Value::Tuple(list) => {
            let items = list.items();
            budget.make::<Value>(items.len().saturating_mul(times))?;
            let times = if items.is_empty() { 0 } else { times };
            let items = (0..times).flat_map(|_| items.iter().cloned()).collect();
            match many {
                Value::List(_) => Value::list(items),
                _ => Value::tuple(items),
            }
        }
        other => Err(Fault::new(format!("a {} cannot be repeated", other.kind()))),
    }
}

fn integers(operator: Binary, a: i128, b: i128) -> Made<Value> {
    let zero = || Fault::new("division by zero");
    let made = match operator {
        Binary::Add => a.checked_add(b),
        Binary::Subtract => a.checked_sub(b),
        Binary::Multiply => a.checked_mul(b),
        Binary::Divide if b == 0 => return Err(zero()),
        Binary::Divide => return Ok(Value::Float(a as f64 / b as f64)),
        Binary::FloorDivide | Binary::Remainder if b == 0 => return Err(zero()),
        Binary::FloorDivide => a.checked_div_euclid(b).map(|whole| {
            // Euclid's remainder is never negative; Python's has the divisor's sign.
            whole - i128::from(b < 0 && a.rem_euclid(b) != 0)
        }),
        Binary::Remainder => a
            .checked_rem_euclid(b)
            .map(|rest| if b < 0 && rest != 0 { rest + b } else { rest }),
        Binary::Power if b < 0 => return floats(operator, a as f64, b as f64),
        Binary::Power => u32::try_from(b).ok().and_then(|power| a.checked_pow(power)),
    };
    let long = || Fault::new("an integer is longer than 128 bits: such ones are not supported");
    made.map(Value::Int).ok_or_else(long)
}

fn floats(operator: Binary, a: f64, b: f64) -> Made<Value> {
    let divides = matches!(
        operator,
        Binary::Divide | Binary::FloorDivide | Binary::Remainder
    );
    if b == 0.0 && divides || operator == Binary::Power && a == 0.0 && b < 0.0 {
        return Err(Fault::new("division by zero"));
    }
    let remainder = || {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
            rest + b
        } else {
            rest
        }
    };
    Ok(Value::Float(match operator {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::FloorDivide => ((a - remainder()) / b).round(),
        Binary::Remainder => remainder(),
        Binary::Power => match b.fract() == 0.0 && b.abs() < 1e9 {
            // Whole powers are exact where they can be.
            true => a.powi(b as i32),
            false => return Err(Fault::new("powers of fractions are not supported")),
        },
    }))
}

/// `-value`, `+value`
pub fn signed(sign: char, value: &Value) -> Made<Value> {
    if let Value::Undefined(reason) = value {
        return Err(Fault::new(&**reason));
    }
    match (sign, value, value.as_int()) {
        ('-', _, Some(number)) => number.checked_neg().map(Value::Int),
        (_, _, Some(number)) => Some(Value::Int(number)),
        ('-', Value::Float(float), _) => Some(Value::Float(-float)),
        (_, Value::Float(float), _) => Some(Value::Float(*float)),
        _ => None,
    }
    .ok_or_else(|| {
        Fault::new(format!(
            "bad operand type for unary {sign}: '{}'",
            value.kind()
        ))
    })
}

/// `left OP right`, true or false.
pub fn compare(
    comparison: Comparison,
    left: &Value,
    right: &Value,
    budget: &mut Budget,
) -> Made<bool> {
    budget.steps(left.cost().min(right.cost()))?;
    Ok(match comparison {
        Comparison::Equal => left.equals(right),
        Comparison::NotEqual => !left.equals(right),
        Comparison::In => contains(right, left, budget)?,
        Comparison::NotIn => !contains(right, left, budget)?,
        Comparison::Less => order(left, right)? == Some(Ordering::Less),
        Comparison::Greater => order(left, right)? == Some(Ordering::Greater),
        Comparison::LessEqual => {
            matches!(order(left, right)?, Some(Ordering::Less | Ordering::Equal))
        }
        Comparison::GreaterEqual => {
            matches!(
                order(left, right)?,
                Some(Ordering::Greater | Ordering::Equal)
            )
        }
    })
}

/// Which of two comes first; `None` where one of them is NaN.
///
/// # Errors
/// Where the two have no order.
pub fn order(left: &Value, right: &Value) -> Made<Option<Ordering>> {
    for value in [left, right] {
        if let Value::Undefined(reason) = value {
            return Err(Fault::new(&**reason));
        }
    }
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Ok(Some(left.chars().cmp(right.chars()))),
        (Value::List(left), Value::List(right)) | (Value::Tuple(left), Value::Tuple(right)) => {
            for (left, right) in left.items().iter().zip(right.items()) {
                if !left.equals(right) {
                    return order(left, right);
                }
            }
            Ok(Some(left.items().len().cmp(&right.items().len())))
        }
        _ => match (left.as_int(), right.as_int()) {
            (Some(left), Some(right)) => Ok(Some(left.cmp(&right))),
            _ => match (left.as_float(), right.as_float()) {
                (Some(left), Some(right)) => Ok(left.partial_cmp(&right)),
                _ => {
                    let (left, right) = (left.kind(), right.kind());
                    let reason = format!("'{left}' and '{right}' have no order");
                    Err(Fault::new(reason))
                }
            },
        },
    }
}

/// `value in container`
pub fn contains(container: &Value, value: &Value, budget: &mut Budget) -> Made<bool> {
    match (container, value) {
        (Value::Text(text), Value::Text(part)) => {
            budget.look(text.len())?;
            Ok(part.is_empty() || text.find(part).is_some())
        }
        (Value::Text(_), other) => {
            let kind = other.kind();
            Err(Fault::new(format!(
                "'in' of a text needs a text on its left, not {kind}"
            )))
        }
        (Value::Dict(dict), key) => {
            budget.steps((1 + dict.entries().len() / 8).saturating_mul(key.cost()))?;
            super::value::key_name(key)?;
            Ok(dict.get(key).is_some())
        }
        (container, value) => {
            let items = container.iterate(budget)?;
            for item in &items {
                budget.steps(item.cost().min(value.cost()))?;
                if item.equals(value) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// `value[start:stop:step]`
pub fn slice(value: &Value, parts: [Option<i128>; 3], budget: &mut Budget) -> Made<Value> {
    let length = match value {
        Value::Undefined(reason) => return Err(Fault::new(&**reason)),
        Value::Text(text) => text.len(),
        Value::List(list) | Value::Tuple(list) => list.items().len(),
        Value::View(view) if view.is_range => view.items.len(),
        other => {
            let reason = format!("a {} cannot be sliced", other.kind());
            return Ok(Value::undefined(reason));
        }
    };
    let places = places(length, parts)?;
    match value {
        Value::Text(text) => {
            budget.make::<Letter>(places.len())?;
            let letters = text.letters();
            let chosen = places.into_iter().filter_map(|at| letters.get(at).copied());
            Ok(Value::Text(chosen.collect()))
        }
        other => {
            budget.make::<Value>(places.len())?;
            let items = match other {
                Value::List(list) | Value::Tuple(list) => list.items(),
                Value::View(view) => &view.items,
                _ => &[],
            };
            let chosen = places
                .into_iter()
                .filter_map(|at| items.get(at).cloned())
                .collect();
            match other {
                Value::Tuple(_) => Value::tuple(chosen),
                _ => Value::list(chosen),
            }
        }
    }
}

/// The places that a slice takes of so many.
fn places(length: usize, [start, stop, step]: [Option<i128>; 3]) -> Made<Vec<usize>> {
    let length = length as i128;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Fault::new("slice step cannot be zero"));
    }
    let (lowest, highest) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let within = |at: i128| {
        let at = if at < 0 {
            at.saturating_add(length)
        } else {
            at
        };
        at.clamp(lowest, highest)
    };
    let (first, last) = if step > 0 {
        (lowest, highest)
    } else {
        (highest, lowest)
    };
    let mut at = start.map_or(first, within);
    let end = stop.map_or(last, within);
    let mut places = Vec::new();
    while (step > 0 && at < end) || (step < 0 && at > end) {
        places.extend(usize::try_from(at).ok());
        at = at.saturating_add(step);
    }
    Ok(places)
}
