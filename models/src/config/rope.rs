//! The rotary embedding, read from both layouts that versions of transformers have written.

mod scaling;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DecoderConfig;
use super::fields::ConfigFields;
use super::rules::{FamilyRules, RopeRules};
use crate::error::ModelError;

pub use scaling::RopeScaling;

/// Largest positions count that a config may claim; the longest known models have 10 million.
pub(super) const POSITIONS_MAX: usize = 1 << 24;

/// The keys of the layers with a window, and of those without, where each kind has parameters of
/// its own.
const LOCAL: &str = "sliding_attention";
const GLOBAL: &str = "full_attention";

/// The rotary embedding: angle(position, i) = position * f(theta^(-2 i / d)), where f is the
/// scaling and d is how much of a head is rotated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched for positions beyond the pre-training.
    pub scaling: RopeScaling,
}

/// What the reading of nested parameters depends on.
struct Reader<'a> {
    config: &'a ConfigFields<'a>,
    rules: &'a RopeRules,
    /// Whether the class takes the length of the pre-training from beside the parameters alone.
    outer_original: Option<usize>,
    max_positions: usize,
    head_dim: usize,
}

/// A rotary embedding, and the share of a head that it rotates, where it was given.
type Partial = (Rope, Option<f64>);

/// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before). Where
/// both are given, they must agree. Also returns how many elements of a head are rotated.
pub(super) fn parse(
    fields: &ConfigFields,
    rules: &FamilyRules,
    config: &DecoderConfig,
) -> Result<(Rope, Option<usize>), ModelError> {
    let reader = Reader::new(fields, rules, config)?;
    let theta = fields.positive_opt(rules.rope.theta_key)?;
    let outer = reader.share(fields, rules.rope.partial_key)?;
    let of = |key: &'static str| {
        let nested = fields.get(key).map(|value| object(fields, key, value));
        let nested = nested
            .transpose()?
            .filter(|nested| !nested.object.is_empty());
        let layered = match (nested, key) {
            (Some(nested), "rope_parameters") if rules.rope.layered => layer(&nested, GLOBAL)?,
            (nested, _) => nested,
        };
        let read = layered.map(|nested| reader.read(&nested, (theta, outer)));
        read.transpose()
    };
    let (rope, share) = match (of("rope_parameters")?, of("rope_scaling")?) {
        (Some(new), Some(old)) if new != old => {
            return Err(fields.bad(
                "rope_scaling",
                fields.get("rope_scaling").unwrap_or(&Value::Null),
                "rope_parameters says another: remove one of the two",
            ));
        }
        (Some(rope), _) | (None, Some(rope)) => rope,
        (None, None) => (
            Rope {
                theta: theta.unwrap_or(rules.rope.theta),
                scaling: RopeScaling::None,
            },
            outer,
        ),
    };
    let rotated = reader.rotated(share)?;
    Ok((rope, Some(rotated).filter(|&width| width < config.head_dim)))
}

/// The rotary embedding of the layers with a window, in a family where these have their own:
/// `sliding_attention` of `rope_parameters`, or the base `rope_local_base_freq`.
pub(super) fn parse_local(
    fields: &ConfigFields,
    config: &DecoderConfig,
    theta: f64,
) -> Result<Rope, ModelError> {
    let rules = config.family.rules();
    let reader = Reader::new(fields, rules, config)?;
    let outer = fields.positive_opt("rope_local_base_freq")?;
    let nested = match fields.get("rope_parameters") {
        Some(value) => layer(&object(fields, "rope_parameters", value)?, LOCAL)?,
        None => None,
    };
    let (rope, _) = match nested {
        Some(nested) => reader.read(&nested, (outer.or(Some(theta)), None))?,
        None => {
            let theta = outer.unwrap_or(theta);
            let scaling = RopeScaling::None;
            (Rope { theta, scaling }, None)
        }
    };
    Ok(rope)
}

/// The parameters of one kind of layers; anything beside them is refused.
fn layer<'a>(
    nested: &ConfigFields<'a>,
    kind: &'static str,
) -> Result<Option<ConfigFields<'a>>, ModelError> {
    if let Some(strange) = nested
        .object
        .keys()
        .find(|key| ![LOCAL, GLOBAL].contains(&&***key))
    {
        return Err(ModelError::UnusableKey {
            path: nested.path.to_path_buf(),
            key: strange.clone(),
            found: crate::json::shown(&nested.object[strange]),
            reason: format!("in this family rope_parameters has {GLOBAL} and {LOCAL}, no others"),
        });
    }
    let value = nested.get(kind);
    value.map(|value| object(nested, kind, value)).transpose()
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

impl<'a> Reader<'a> {
    fn new(
        fields: &'a ConfigFields<'a>,
        rules: &'a FamilyRules,
        config: &DecoderConfig,
    ) -> Result<Self, ModelError> {
        let key = "original_max_position_embeddings";
        let outer = match rules.original_positions {
            Some(default) => Some(fields.size_or(key, POSITIONS_MAX, default)?),
            None => fields.size_opt(key, POSITIONS_MAX)?,
        };
        Ok(Self {
            config: fields,
            rules: &rules.rope,
            outer_original: outer,
            max_positions: config.max_positions,
            head_dim: config.head_dim,
        })
    }

    /// The share of a head that is rotated, where `key` gives one. A family that does not read such
    /// a key rotates whole heads.
    fn share(&self, at: &ConfigFields, key: &'static str) -> Result<Option<f64>, ModelError> {
        let share = at.positive_opt(key)?;
        match share {
            Some(share) if share > 1.0 => {
                Err(at.bad(key, share, "cannot be above 1, which is the whole head"))
            }
            Some(share) if share != 1.0 && self.rules.partial.is_none() => Err(at.bad(
                key,
                share,
                "only whole heads can be rotated in this family (1.0): take a model that does so",
            )),
            share => Ok(share),
        }
    }

    /// How many elements of a head are rotated.
    fn rotated(&self, share: Option<f64>) -> Result<usize, ModelError> {
        let share = share.or(self.rules.partial).unwrap_or(1.0);
        let width = (self.head_dim as f64 * share) as usize;
        match width.is_multiple_of(2) && width > 0 {
            true => Ok(width),
            false => Err(self.config.bad(
                self.rules.partial_key,
                share,
                format!("makes {width} of a head: must come to an even number"),
            )),
        }
    }

    /// Reads nested parameters; `outer` are theta and the share from beside the nested object.
    fn read(
        &self,
        nested: &ConfigFields,
        (outer_theta, outer_share): (Option<f64>, Option<f64>),
    ) -> Result<Partial, ModelError> {
        let another = |key, inner: f64, outer: f64| {
            let rule = format!("beside it stands another, {outer}: remove one of the two");
            Err(nested.bad(key, inner, rule))
        };
        let inner_share = self.share(nested, "partial_rotary_factor")?;
        let share = match (inner_share, outer_share) {
            (Some(inner), Some(outer)) if inner != outer => {
                return another("partial_rotary_factor", inner, outer);
            }
            (inner, outer) => inner.or(outer),
        };
        let theta = match (nested.positive_opt("rope_theta")?, outer_theta) {
            (Some(inner), Some(outer)) if inner != outer && !self.rules.layered => {
                return another("rope_theta", inner, outer);
            }
            (inner, outer) => inner.or(outer).unwrap_or(self.rules.theta),
        };
        let kind = match (nested.text("rope_type")?, nested.text("type")?) {
            (Some(kind), Some(old)) if kind != old => {
                let rule = format!("`rope_type` is {kind:?}: remove one of the two");
                return Err(nested.bad("type", format!("{old:?}"), rule));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) => "default",
        };
        // Older names of LongRoPE in files of Phi 3.
        let kind = match (kind, self.rules.longrope_names) {
            ("su" | "yarn", true) => "longrope",
            _ => kind,
        };
        let source = scaling::ScalingSource {
            nested,
            outer_original: self.outer_original,
            max_positions: self.max_positions,
            pairs: self.rotated(share)? / 2,
        };
        let scaling = source.read(kind)?;
        Ok((Rope { theta, scaling }, share))
    }
}
