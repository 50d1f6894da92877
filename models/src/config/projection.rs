//! The seven projections of a decoder layer: the matrices that LoRA can adapt.

use std::str::FromStr;

use super::DecoderConfig;
use crate::error::{ModelError, nearest_hint};

/// One of the seven matrices of a decoder layer. Ordered as the computation uses them.
///
/// ```
/// use concord_models::config::Projection;
///
/// assert_eq!("v_proj".parse::<Projection>()?, Projection::V);
/// let error = "down_porj".parse::<Projection>().unwrap_err().to_string();
/// assert!(error.contains("did you mean `down_proj`?"), "{error}");
/// # Ok::<(), concord_models::ModelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Output of attention.
    O,
    /// Gate of the feed-forward layer.
    Gate,
    /// Up projection of the feed-forward layer.
    Up,
    /// Down projection of the feed-forward layer.
    Down,
}

impl Projection {
    /// All seven, in the order of the computation.
    pub const ALL: [Projection; 7] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// The name that fine-tuners know: `q_proj` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Q => "q_proj",
            Projection::K => "k_proj",
            Projection::V => "v_proj",
            Projection::O => "o_proj",
            Projection::Gate => "gate_proj",
            Projection::Up => "up_proj",
            Projection::Down => "down_proj",
        }
    }

    /// The module within a layer: `self_attn.q_proj` and so on.
    pub fn module(self) -> &'static str {
        match self {
            Projection::Q => "self_attn.q_proj",
            Projection::K => "self_attn.k_proj",
            Projection::V => "self_attn.v_proj",
            Projection::O => "self_attn.o_proj",
            Projection::Gate => "mlp.gate_proj",
            Projection::Up => "mlp.up_proj",
            Projection::Down => "mlp.down_proj",
        }
    }

    /// The shape `[out, in]` of its weight.
    pub fn shape(self, config: &DecoderConfig) -> [usize; 2] {
        match self {
            Projection::Q => [config.q_dim(), config.hidden],
            Projection::K | Projection::V => [config.kv_dim(), config.hidden],
            Projection::O => [config.hidden, config.q_dim()],
            Projection::Gate | Projection::Up => [config.intermediate, config.hidden],
            Projection::Down => [config.hidden, config.intermediate],
        }
    }

    /// Whether it has a bias of `out` elements.
    pub fn has_bias(self, config: &DecoderConfig) -> bool {
        match self {
            Projection::Q | Projection::K | Projection::V => config.qkv_bias,
            Projection::O => config.o_bias,
            Projection::Gate | Projection::Up | Projection::Down => config.mlp_bias,
        }
    }
}

impl FromStr for Projection {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        Projection::ALL
            .into_iter()
            .find(|projection| projection.name() == name)
            .ok_or_else(|| ModelError::UnknownProjection {
                found: name.to_string(),
                hint: nearest_hint(name, &Projection::ALL.map(Projection::name)),
            })
    }
}
