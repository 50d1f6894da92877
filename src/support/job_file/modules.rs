//! Values of keys that are lists: names of modules, expressions for them, mappings from both, and
//! shares.

use concord_models::config::Projection;
use concord_models::peft::Modules;
use serde_yaml_ng::Value;

/// The word for every projection.
const ALL_LINEAR: &str = "all-linear";

/// Names of modules or of projections of any family, or an expression for whole names.
pub(super) fn modules(value: &Value) -> Option<Modules> {
    let items = match value {
        Value::String(text) if text == ALL_LINEAR => return Some(Modules::All),
        Value::String(text) if !text.trim().is_empty() => {
            return Some(Modules::Pattern(text.clone()));
        }
        value => value.as_sequence().filter(|items| !items.is_empty())?,
    };
    let texts = items.iter().map(|item| item.as_str().map(str::to_string));
    let mut names: Vec<String> = texts.collect::<Option<_>>()?;
    let projections = names
        .iter()
        .filter_map(|name| name.parse::<Projection>().ok());
    let projections = projections.collect();
    names.retain(|name| name.parse::<Projection>().is_err());
    Some(Modules::Names { projections, names })
}

/// Indices of layers: a list, or one.
pub(super) fn layers(value: &Value) -> Option<Vec<u32>> {
    let index = |value: &Value| u32::try_from(value.as_u64()?).ok();
    match value.as_sequence() {
        Some(items) if items.is_empty() => None,
        Some(items) => items.iter().map(index).collect(),
        None => index(value).map(|index| vec![index]),
    }
}

/// Texts: a list, or one.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_string);
    match value.as_sequence() {
        Some(items) if items.is_empty() => None,
        Some(items) => items.iter().map(text).collect(),
        None => text(value).map(|text| vec![text]),
    }
}

/// Expressions with ranks.
pub(super) fn ranks(value: &Value) -> Option<Vec<(String, u32)>> {
    let rank = |value: &Value| u32::try_from(value.as_u64()?).ok().filter(|rank| *rank > 0);
    entries(value, rank)
}

/// Expressions with alphas.
pub(super) fn alphas(value: &Value) -> Option<Vec<(String, f64)>> {
    let alpha = |value: &Value| value.as_f64().filter(|alpha| *alpha > 0.0);
    entries(value, alpha)
}

/// Shares above 0 that add up to 1, two at least.
pub(super) fn shares(value: &Value) -> Option<Vec<f64>> {
    let share = |value: &Value| value.as_f64().filter(|share| *share > 0.0);
    let shares: Vec<f64> = value
        .as_sequence()?
        .iter()
        .map(share)
        .collect::<Option<_>>()?;
    let sum: f64 = shares.iter().sum();
    (shares.len() > 1 && (sum - 1.0).abs() < 1e-6).then_some(shares)
}

fn entries<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<(String, T)>> {
    let pair = |(key, value): (&Value, &Value)| Some((key.as_str()?.to_string(), read(value)?));
    let entries: Option<Vec<_>> = value.as_mapping()?.iter().map(pair).collect();
    entries.filter(|entries| !entries.is_empty())
}
