//! The projections of a decoder layer: the matrices that LoRA can adapt.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DecoderConfig;
use crate::error::{ModelError, nearest_hint};

/// One of the matrices of a decoder layer, in the order of the computation. A family has q, k and v
/// separate or fused; gate and up separate or fused, or no gate.
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
    /// Queries, keys and values, fused.
    Qkv,
    /// Output of attention.
    O,
    /// Gate of the feed-forward layer.
    Gate,
    /// Up projection of the feed-forward layer.
    Up,
    /// Gate and up projection, fused.
    GateUp,
    /// Down projection of the feed-forward layer.
    Down,
}

/// The order of the rows of a fused projection of queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FusedQkv {
    /// All queries, then all keys, then all values (Phi 3).
    Blocks,
    /// Head by head: query, key and value of the first head, then of the next (GPT-NeoX).
    Heads,
}

/// Names in other families, for modules that Llama names otherwise or does not have.
const OTHER_NAMES: [(&str, Projection); 11] = [
    ("query_key_value", Projection::Qkv),
    ("dense", Projection::O),
    ("dense_h_to_4h", Projection::Up),
    ("dense_4h_to_h", Projection::Down),
    ("c_fc", Projection::Up),
    ("c_proj", Projection::Down),
    ("fc1", Projection::Up),
    ("fc2", Projection::Down),
    ("w1", Projection::Gate),
    ("w3", Projection::Up),
    ("w2", Projection::Down),
];

impl Projection {
    /// All, in the order of the computation. A model has some of them:
    /// [`DecoderConfig::projections`].
    pub const ALL: [Projection; 9] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::Qkv,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::GateUp,
        Projection::Down,
    ];

    /// The name that fine-tuners know: `q_proj` and so on. A family may have another:
    /// [`DecoderConfig::projection_name`].
    pub fn name(self) -> &'static str {
        last(self.llama_module())
    }

    /// The module within a layer of a family that names it as Llama does.
    pub(super) fn llama_module(self) -> &'static str {
        match self {
            Projection::Q => "self_attn.q_proj",
            Projection::K => "self_attn.k_proj",
            Projection::V => "self_attn.v_proj",
            Projection::Qkv => "self_attn.qkv_proj",
            Projection::O => "self_attn.o_proj",
            Projection::Gate => "mlp.gate_proj",
            Projection::Up => "mlp.up_proj",
            Projection::GateUp => "mlp.gate_up_proj",
            Projection::Down => "mlp.down_proj",
        }
    }

    /// The shape `[out, in]` of its weight.
    pub fn shape(self, config: &DecoderConfig) -> [usize; 2] {
        let (q, kv) = (config.q_dim(), config.kv_dim());
        match self {
            Projection::Q => [q, config.hidden],
            Projection::K | Projection::V => [kv, config.hidden],
            Projection::Qkv => [q + 2 * kv, config.hidden],
            Projection::O => [config.hidden, q],
            Projection::Gate | Projection::Up => [config.intermediate, config.hidden],
            Projection::GateUp => [2 * config.intermediate, config.hidden],
            Projection::Down => [config.hidden, config.intermediate],
        }
    }

    /// Whether it belongs to the feed-forward layer, not to attention.
    pub(crate) fn is_of_feed_forward(self) -> bool {
        match self {
            Projection::Q | Projection::K | Projection::V | Projection::Qkv | Projection::O => {
                false
            }
            Projection::Gate | Projection::Up | Projection::GateUp | Projection::Down => true,
        }
    }

    /// Whether it has a bias of `out` elements.
    pub fn has_bias(self, config: &DecoderConfig) -> bool {
        match self {
            Projection::Q | Projection::K | Projection::V | Projection::Qkv => config.qkv_bias,
            Projection::O => config.o_bias,
            Projection::Gate | Projection::Up | Projection::GateUp | Projection::Down => {
                config.mlp_bias
            }
        }
    }
}

impl DecoderConfig {
    /// The projections that each layer has, in the order of the computation.
    pub fn projections(&self) -> Vec<Projection> {
        let mut projections = match self.fused_qkv {
            Some(_) => vec![Projection::Qkv, Projection::O],
            None => vec![Projection::Q, Projection::K, Projection::V, Projection::O],
        };
        if self.has_fused_experts_alone() {
            return projections;
        }
        projections.extend(match (self.gated, self.fused_gate_up) {
            (true, true) => &[Projection::GateUp][..],
            (true, false) => &[Projection::Gate, Projection::Up],
            (false, _) => &[Projection::Up],
        });
        projections.push(Projection::Down);
        projections
    }

    /// The module of a projection within a layer: `self_attn.q_proj` and so on.
    pub fn module(&self, projection: Projection) -> &'static str {
        self.parts().module(projection)
    }

    /// The whole name of a projection's module: `model.layers.0.self_attn.q_proj` and so on.
    pub fn module_path(&self, layer: usize, projection: Projection) -> String {
        format!(
            "{}.{layer}.{}",
            self.parts().layers,
            self.module(projection)
        )
    }

    /// The name of a projection as fine-tuners of the family know it.
    pub fn projection_name(&self, projection: Projection) -> &'static str {
        last(self.module(projection))
    }
}

fn last(module: &'static str) -> &'static str {
    module.rsplit('.').next().unwrap_or(module)
}

impl FromStr for Projection {
    type Err = ModelError;

    /// From the name in any family.
    fn from_str(name: &str) -> Result<Self, ModelError> {
        let own = Projection::ALL.map(|projection| (projection.name(), projection));
        let mut known = own.iter().chain(&OTHER_NAMES);
        known
            .find(|(known, _)| *known == name)
            .map(|(_, projection)| *projection)
            .ok_or_else(|| ModelError::UnknownProjection {
                found: name.to_string(),
                hint: nearest_hint(name, &Projection::ALL.map(Projection::name)),
            })
    }
}
