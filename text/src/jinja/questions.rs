//! Tests: what stands behind `is`.

use super::fault::{Fault, Made};
use super::operators::{binary, compare};
use super::print::text_of;
use super::run::Rendering;
use super::syntax::{Binary, Comparison};
use super::text_cases;
use super::value::{Given, Value};

impl Rendering {
    /// Whether a value passes the test that the arguments are for.
    pub fn test(&mut self, value: &Value, mut given: Given) -> Made<bool> {
        self.budget.steps(1)?;
        let name = given.name.clone();
        let comparison = match name.as_str() {
            "eq" | "equalto" | "==" => Some(Comparison::Equal),
            "ne" | "!=" => Some(Comparison::NotEqual),
            "lt" | "lessthan" | "<" => Some(Comparison::Less),
            "le" | "<=" => Some(Comparison::LessEqual),
            "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
            "ge" | ">=" => Some(Comparison::GreaterEqual),
            "in" => Some(Comparison::In),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let other = given.need(0, "other")?;
            given.finish()?;
            return compare(comparison, value, &other, &mut self.budget);
        }
        let answer = match name.as_str() {
            "escaped" => false,
            "sameas" => value.is_same(&given.need(0, "other")?),
            "odd" | "even" | "divisibleby" => {
                let divisor = match name.as_str() {
                    "divisibleby" => given.need(0, "num")?,
                    _ => Value::Int(2),
                };
                if matches!(value, Value::Text(_)) {
                    return Err(Fault::new(format!("{name}: a text is no number")));
                }
                let rest = binary(Binary::Remainder, value, &divisor, &mut self.budget)?;
                let wanted = Value::Int(i128::from(name == "odd"));
                rest.equals(&wanted)
            }
            "lower" | "upper" => {
                let text = text_of(value, &mut self.budget)?;
                text_cases::is(
                    &text,
                    if name == "lower" {
                        "islower"
                    } else {
                        "isupper"
                    },
                )
            }
            other => {
                let is_kind = is_kind(value, other);
                is_kind.ok_or_else(|| Fault::new(format!("No test named '{other}'.")))?
            }
        };
        given.finish()?;
        Ok(answer)
    }
}

/// Whether a value is of a kind, if there is a test of this name.
fn is_kind(value: &Value, name: &str) -> Option<bool> {
    Some(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.as_float().is_some(),
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => match value {
            Value::Text(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) => true,
            Value::View(view) => view.is_range,
            // It can be indexed and iterated, and is empty.
            Value::Undefined(_) => true,
            _ => false,
        },
        "iterable" => matches!(
            value,
            Value::Text(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Dict(_)
                | Value::View(_)
                | Value::Once(_)
                | Value::Loop(_)
                | Value::Undefined(_)
        ),
        "callable" => matches!(
            value,
            Value::Macro(_)
                | Value::Function(_)
                | Value::Method(_)
                | Value::Loop(_)
                | Value::Callable(_)
                | Value::Undefined(_)
        ),
        _ => return None,
    })
}
