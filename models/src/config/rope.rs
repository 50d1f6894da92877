//! The rotary embedding, in both layouts that transformers has written.

use serde_json::Value;

use super::fields::ConfigFields;
use crate::error::ModelError;
use crate::json::shown;
use crate::neutral::Neutral;

/// transformers' own default where a config names no base.
const THETA_DEFAULT: f64 = 10_000.0;
/// Largest positions count that a config may claim; the longest known models have 10 million.
pub(super) const POSITIONS_MAX: usize = 1 << 24;

/// The rotary embedding: angle(position, i) = position * f(theta^(-2 i / head_dim)), where f is
/// the scaling. Halves are rotated (i with i + head_dim/2), as Hugging Face stores the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched for positions beyond the pre-training.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency is divided by `factor`.
    Linear {
        /// At least 1 in practice; above 0.
        factor: f64,
    },
    /// Llama 3.1: with wavelength w = 2 pi / frequency and o = `original_max_positions`, a
    /// frequency stays where w < o / high_freq_factor, is divided by `factor` where
    /// w > o / low_freq_factor, and between is mixed linearly in o / w.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Marks the low frequencies.
        low_freq_factor: f64,
        /// Marks the high frequencies; above `low_freq_factor`.
        high_freq_factor: f64,
        /// Positions of the pre-training.
        original_max_positions: usize,
    },
}

/// The keys of the nested object, beside `rope_theta`, by the types that use them.
const NESTED: [(&str, &[&str]); 4] = [
    ("factor", &["linear", "llama3"]),
    ("low_freq_factor", &["llama3"]),
    ("high_freq_factor", &["llama3"]),
    // Where it is not used, it says how long the pre-training was.
    (
        "original_max_position_embeddings",
        &["default", "linear", "llama3"],
    ),
];

/// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before). Where
/// both are there, they must come to the same.
pub(super) fn parse(config: &ConfigFields, max_positions: usize) -> Result<Rope, ModelError> {
    whole_rotation(config)?;
    let theta = config.positive_opt("rope_theta")?;
    let of = |key: &'static str| {
        let nested = config.get(key).map(|value| object(config, key, value));
        let nested = nested
            .transpose()?
            .filter(|nested| !nested.object.is_empty());
        let read = nested.map(|nested| read(config, &nested, theta, max_positions));
        read.transpose()
    };
    match (of("rope_parameters")?, of("rope_scaling")?) {
        (Some(new), Some(old)) if new != old => Err(config.bad(
            "rope_scaling",
            config.get("rope_scaling").unwrap_or(&Value::Null),
            "rope_parameters says another: remove one of the two",
        )),
        (Some(rope), _) | (None, Some(rope)) => Ok(rope),
        (None, None) => Ok(Rope {
            theta: theta.unwrap_or(THETA_DEFAULT),
            scaling: RopeScaling::None,
        }),
    }
}

fn object<'a>(
    config: &ConfigFields<'a>,
    key: &'static str,
    value: &'a Value,
) -> Result<ConfigFields<'a>, ModelError> {
    let object = value
        .as_object()
        .ok_or_else(|| config.bad(key, value, "must be an object"))?;
    Ok(ConfigFields {
        path: config.path,
        object,
    })
}

fn whole_rotation(config: &ConfigFields) -> Result<(), ModelError> {
    match config.positive_opt("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(config.bad(
            "partial_rotary_factor",
            factor,
            "only whole heads can be rotated (1.0): take a model that does so",
        )),
        _ => Ok(()),
    }
}

fn read(
    config: &ConfigFields,
    nested: &ConfigFields,
    outer_theta: Option<f64>,
    max_positions: usize,
) -> Result<Rope, ModelError> {
    whole_rotation(nested)?;
    let theta = match (nested.positive_opt("rope_theta")?, outer_theta) {
        (Some(inner), Some(outer)) if inner != outer => {
            let rule = format!("beside it stands another, {outer}: remove one of the two");
            return Err(nested.bad("rope_theta", inner, rule));
        }
        (Some(theta), _) | (None, Some(theta)) => theta,
        (None, None) => THETA_DEFAULT,
    };
    let kind = match (nested.text("rope_type")?, nested.text("type")?) {
        (Some(kind), Some(old)) if kind != old => {
            let rule = format!("`rope_type` is {kind:?}: remove one of the two");
            return Err(nested.bad("type", format!("{old:?}"), rule));
        }
        (Some(kind), _) | (None, Some(kind)) => kind,
        (None, None) => "default",
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: nested.positive("factor")?,
        },
        "llama3" => llama3(config, nested, max_positions)?,
        other => {
            return Err(ModelError::UnsupportedRope {
                path: nested.path.to_path_buf(),
                found: other.to_string(),
            });
        }
    };
    check_keys(nested, kind)?;
    Ok(Rope { theta, scaling })
}

fn llama3(
    config: &ConfigFields,
    nested: &ConfigFields,
    max_positions: usize,
) -> Result<RopeScaling, ModelError> {
    let low_freq_factor = nested.positive("low_freq_factor")?;
    let high_freq_factor = nested.positive("high_freq_factor")?;
    if high_freq_factor <= low_freq_factor {
        return Err(nested.bad(
            "high_freq_factor",
            high_freq_factor,
            format!("must be above low_freq_factor = {low_freq_factor}"),
        ));
    }
    let key = "original_max_position_embeddings";
    let outer = config.size_opt(key, POSITIONS_MAX)?;
    let original_max_positions = match (nested.size_opt(key, POSITIONS_MAX)?, outer) {
        (Some(inner), Some(outer)) if inner != outer => {
            let rule = format!("beside it stands another, {outer}: remove one of the two");
            return Err(nested.bad(key, inner, rule));
        }
        (Some(positions), _) | (None, Some(positions)) => positions,
        (None, None) => max_positions,
    };
    Ok(RopeScaling::Llama3 {
        factor: nested.positive("factor")?,
        low_freq_factor,
        high_freq_factor,
        original_max_positions,
    })
}

/// Refuses a key that the type does not use: transformers passes over it, but its author meant
/// something by it.
fn check_keys(nested: &ConfigFields, kind: &str) -> Result<(), ModelError> {
    let always = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
    for (key, value) in nested.object {
        let used = NESTED.iter().find(|(known, _)| known == key);
        let is_used = used.is_some_and(|(_, kinds)| kinds.contains(&kind));
        // As factors, these stretch nothing.
        let is_one = matches!(&**key, "factor" | "attention_factor") && Neutral::One.holds(value);
        if is_used || is_one || value.is_null() || always.contains(&&**key) {
            continue;
        }
        return Err(ModelError::UnusableKey {
            path: nested.path.to_path_buf(),
            key: key.clone(),
            found: shown(value),
            reason: format!(
                "RoPE of the type `{kind}` does not use it: name the type that is meant as \
                 `rope_type`, or remove the key"
            ),
        });
    }
    Ok(())
}
