//! The scaling of a rotary embedding's frequencies.

use concord_kernels::tables::ln;
use serde::{Deserialize, Serialize};

use super::POSITIONS_MAX;
use crate::config::fields::ConfigFields;
use crate::error::ModelError;
use crate::json::shown;
use crate::neutral::Neutral;

/// How frequencies are scaled, for positions beyond those of the pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// NTK: theta is multiplied by `(factor * n / o - (factor - 1))^(d / (d - 2))`, where o is
    /// `original_max_positions` and n the declared longest length, at least o. In transformers n is
    /// the current length of the sequence, so keys in a cache no longer match once it grows.
    Dynamic {
        /// Stretches the positions.
        factor: f64,
        /// Positions of the pre-training.
        original_max_positions: usize,
    },
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// Positions of the pre-training.
        original_max_positions: usize,
        /// Frequencies with at least so many rotations over the pre-training stay as they are.
        beta_fast: f64,
        /// Frequencies with at most so many rotations are divided by `factor`.
        beta_slow: f64,
        /// Whether the ends of the ramp between the two are rounded to whole pairs.
        truncate: bool,
        /// Multiplies cos and sin.
        attention_factor: f64,
    },
    /// LongRoPE (Ding et al. 2024): every pair has a divisor of its own. Which of the two lists is
    /// used depends on the declared longest length of a job or a deployment; in transformers, on
    /// the current length of the sequence.
    LongRope {
        /// The divisors for lengths up to the positions of the pre-training.
        short: Vec<f64>,
        /// The divisors for greater lengths.
        long: Vec<f64>,
        /// Positions of the pre-training.
        original_max_positions: usize,
        /// Multiplies cos and sin.
        attention_factor: f64,
    },
}

/// The keys of the nested object, besides `rope_theta`, with the types that use each.
const NESTED: [(&str, &[&str]); 12] = [
    (
        "factor",
        &["linear", "llama3", "dynamic", "yarn", "longrope"],
    ),
    ("low_freq_factor", &["llama3"]),
    ("high_freq_factor", &["llama3"]),
    ("beta_fast", &["yarn"]),
    ("beta_slow", &["yarn"]),
    ("mscale", &["yarn"]),
    ("mscale_all_dim", &["yarn"]),
    ("truncate", &["yarn"]),
    ("attention_factor", &["yarn", "longrope"]),
    ("short_factor", &["longrope"]),
    ("long_factor", &["longrope"]),
    // Types that do not use it still carry it, to say how long the pre-training was.
    (
        ORIGINAL,
        &["default", "linear", "llama3", "dynamic", "yarn", "longrope"],
    ),
];

const ORIGINAL: &str = "original_max_position_embeddings";

/// Where a scaling is read from.
pub(super) struct ScalingSource<'a> {
    pub(super) nested: &'a ConfigFields<'a>,
    /// `original_max_position_embeddings` beside the nested object.
    pub(super) outer_original: Option<usize>,
    pub(super) max_positions: usize,
    /// Pairs of a head that are rotated.
    pub(super) pairs: usize,
}

impl ScalingSource<'_> {
    /// The scaling of the type `kind`.
    pub(super) fn read(&self, kind: &str) -> Result<RopeScaling, ModelError> {
        let nested = self.nested;
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear {
                factor: nested.positive("factor")?,
            },
            "llama3" => self.llama3()?,
            "dynamic" => RopeScaling::Dynamic {
                factor: self.at_least_one()?,
                original_max_positions: self.max_positions,
            },
            "yarn" => self.yarn()?,
            "longrope" => self.longrope()?,
            other => {
                return Err(ModelError::UnsupportedRope {
                    path: nested.path.to_path_buf(),
                    found: other.to_string(),
                });
            }
        };
        self.check_keys(kind)?;
        Ok(scaling)
    }

    /// The factor of `dynamic`; below 1, its base would not be a number at every length.
    fn at_least_one(&self) -> Result<f64, ModelError> {
        let factor = self.nested.positive("factor")?;
        match factor >= 1.0 {
            true => Ok(factor),
            false => Err(self.nested.bad("factor", factor, "must be at least 1")),
        }
    }

    /// Positions of the pre-training.
    fn original(&self) -> Result<usize, ModelError> {
        let inner = self.nested.size_opt(ORIGINAL, POSITIONS_MAX)?;
        match (inner, self.outer_original) {
            (Some(inner), Some(outer)) if inner != outer => {
                let rule = format!("beside it stands another, {outer}: remove one of the two");
                Err(self.nested.bad(ORIGINAL, inner, rule))
            }
            (inner, outer) => Ok(inner.or(outer).unwrap_or(self.max_positions)),
        }
    }

    fn llama3(&self) -> Result<RopeScaling, ModelError> {
        let nested = self.nested;
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
            original_max_positions: self.original()?,
            factor: nested.positive("factor")?,
            low_freq_factor,
            high_freq_factor,
        })
    }

    /// `factor`; where it is null, `max_position_embeddings` divided by the pre-training's length.
    fn stretch(&self, original: usize) -> Result<f64, ModelError> {
        Ok(match self.nested.positive_opt("factor")? {
            Some(factor) => factor,
            None => self.max_positions as f64 / original as f64,
        })
    }

    fn yarn(&self) -> Result<RopeScaling, ModelError> {
        let nested = self.nested;
        let original_max_positions = self.original()?;
        if !nested.has("factor") {
            return Err(nested.missing("factor"));
        }
        let factor = self.stretch(original_max_positions)?;
        let scale = |mscale: f64| match factor <= 1.0 {
            true => 1.0,
            false => 0.1 * mscale * ln(factor) + 1.0,
        };
        let mscale = nested.positive_opt("mscale")?;
        let all = nested.positive_opt("mscale_all_dim")?;
        let attention_factor = match (nested.positive_opt("attention_factor")?, mscale, all) {
            (Some(given), _, _) => given,
            (None, Some(mscale), Some(all)) => scale(mscale) / scale(all),
            _ => scale(1.0),
        };
        let beta_fast = nested.positive_opt("beta_fast")?.unwrap_or(32.0);
        let beta_slow = nested.positive_opt("beta_slow")?.unwrap_or(1.0);
        if beta_fast < beta_slow {
            let rule = format!("must not be below beta_slow = {beta_slow}");
            return Err(nested.bad("beta_fast", beta_fast, rule));
        }
        Ok(RopeScaling::Yarn {
            factor,
            original_max_positions,
            beta_fast,
            beta_slow,
            truncate: nested.flag("truncate", true)?,
            attention_factor,
        })
    }

    fn longrope(&self) -> Result<RopeScaling, ModelError> {
        let original_max_positions = self.original()?;
        let factor = self.stretch(original_max_positions)?;
        let attention_factor = match self.nested.positive_opt("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + ln(factor) / ln(original_max_positions as f64)).sqrt(),
        };
        Ok(RopeScaling::LongRope {
            short: self.divisors("short_factor")?,
            long: self.divisors("long_factor")?,
            original_max_positions,
            attention_factor,
        })
    }

    /// A divisor for each pair.
    fn divisors(&self, key: &'static str) -> Result<Vec<f64>, ModelError> {
        let nested = self.nested;
        let value = nested.get(key).ok_or_else(|| nested.missing(key))?;
        let pairs = self.pairs;
        let rule = || format!("must be a list of {pairs} numbers above 0, one for each pair");
        let bad = || nested.bad(key, value, rule());
        let list = value.as_array().filter(|list| list.len() == pairs);
        let number = |item: &serde_json::Value| {
            let number = item.as_f64();
            number.filter(|number| number.is_finite() && *number > 0.0)
        };
        let divisors = list.ok_or_else(bad)?.iter().map(number);
        divisors.collect::<Option<Vec<f64>>>().ok_or_else(bad)
    }

    /// Refuses a key that the type does not use: transformers ignores it, but the file's author
    /// meant something by it.
    fn check_keys(&self, kind: &str) -> Result<(), ModelError> {
        let always = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        for (key, value) in self.nested.object {
            let used = NESTED.iter().find(|(known, _)| known == key);
            let is_used = used.is_some_and(|(_, kinds)| kinds.contains(&kind));
            // A factor of 1 scales nothing.
            let is_one =
                matches!(&**key, "factor" | "attention_factor") && Neutral::One.holds(value);
            if is_used || is_one || value.is_null() || always.contains(&&**key) {
                continue;
            }
            return Err(ModelError::UnusableKey {
                path: self.nested.path.to_path_buf(),
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
}
