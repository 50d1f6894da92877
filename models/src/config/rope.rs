//! The rotary embedding, in both layouts that transformers has written.

use serde_json::Value;

use super::fields::Fields;
use crate::error::ModelError;

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

/// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before).
pub(super) fn parse(config: &Fields) -> Result<Rope, ModelError> {
    whole_rotation(config)?;
    if let Some(value) = config.get("rope_parameters") {
        let nested = object(config, "rope_parameters", value)?;
        whole_rotation(&nested)?;
        let theta = match nested.positive_opt("rope_theta")? {
            Some(theta) => theta,
            None => config.positive_opt("rope_theta")?.unwrap_or(THETA_DEFAULT),
        };
        return Ok(Rope {
            theta,
            scaling: scaling(&nested)?,
        });
    }
    let theta = config.positive_opt("rope_theta")?.unwrap_or(THETA_DEFAULT);
    let scaling = match config.get("rope_scaling") {
        Some(value) => scaling(&object(config, "rope_scaling", value)?)?,
        None => RopeScaling::None,
    };
    Ok(Rope { theta, scaling })
}

fn object<'a>(
    config: &Fields<'a>,
    key: &'static str,
    value: &'a Value,
) -> Result<Fields<'a>, ModelError> {
    let object = value
        .as_object()
        .ok_or_else(|| config.bad(key, value, "must be an object"))?;
    Ok(Fields {
        path: config.path,
        object,
    })
}

fn whole_rotation(config: &Fields) -> Result<(), ModelError> {
    match config.positive_opt("partial_rotary_factor")? {
        Some(factor) if factor != 1.0 => Err(config.bad(
            "partial_rotary_factor",
            factor,
            "only whole heads can be rotated (1.0)",
        )),
        _ => Ok(()),
    }
}

fn scaling(nested: &Fields) -> Result<RopeScaling, ModelError> {
    let kind = match nested.text("rope_type")? {
        Some(kind) => kind,
        None => nested.text("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear {
            factor: nested.positive("factor")?,
        }),
        "llama3" => {
            let low_freq_factor = nested.positive("low_freq_factor")?;
            let high_freq_factor = nested.positive("high_freq_factor")?;
            if high_freq_factor <= low_freq_factor {
                return Err(nested.bad(
                    "high_freq_factor",
                    high_freq_factor,
                    format!("must be above low_freq_factor = {low_freq_factor}"),
                ));
            }
            Ok(RopeScaling::Llama3 {
                factor: nested.positive("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_positions: nested
                    .size("original_max_position_embeddings", POSITIONS_MAX)?,
            })
        }
        other => Err(ModelError::UnsupportedRope {
            path: nested.path.to_path_buf(),
            found: other.to_string(),
        }),
    }
}
