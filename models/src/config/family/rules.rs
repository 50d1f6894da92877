//! What differs between families in reading a `config.json`: defaults, keys and names.

use super::super::DecoderConfig;
use super::super::fields::ConfigFields;
use super::super::names::PartNames;
use crate::error::ModelError;

/// The rules of one family. Defaults are those of transformers 5's configuration class.
pub(in crate::config) struct FamilyRules {
    /// The name in `architectures`, and its `model_type`.
    pub(in crate::config) names: (&'static str, &'static str),
    /// Keys that it reads beyond those of every family.
    pub(in crate::config) keys: &'static str,
    /// Keys that its public files carry, and its class does not look at.
    pub(in crate::config) ignored: &'static str,
    /// `max_position_embeddings`.
    pub(in crate::config) positions: usize,
    /// `num_key_value_heads`; without one, as many as query heads.
    pub(in crate::config) kv_heads: Option<usize>,
    /// `head_dim`; without one, `hidden_size / num_attention_heads`.
    pub(in crate::config) head_dim: Option<usize>,
    /// `original_max_position_embeddings` beside the parameters of the rotary embedding, where the
    /// class has it.
    pub(in crate::config) original_positions: Option<usize>,
    /// How the rotary embedding is read.
    pub(in crate::config) rope: RopeRules,
    /// The key of what is added in every norm, and its default.
    pub(in crate::config) norm_eps: (&'static str, f64),
    /// The key of the activation, and its default.
    pub(in crate::config) activation: (&'static str, &'static str),
    /// `tie_word_embeddings`.
    pub(in crate::config) tied: bool,
    /// `bos_token_id` and `eos_token_id`.
    pub(in crate::config) special: (&'static [u32], &'static [u32]),
    /// The names of its parts.
    pub(in crate::config) parts: PartNames,
    /// Reads the rest: what makes it another decoder than a Llama.
    pub(in crate::config) differ: Differ,
}

/// Changes a configuration that was read as a Llama's into that of the family.
pub(in crate::config) type Differ = fn(&ConfigFields, &mut DecoderConfig) -> Result<(), ModelError>;

/// How a family reads its rotary embedding.
#[derive(Clone, Copy)]
pub(in crate::config) struct RopeRules {
    /// `rope_theta` where nothing says it.
    pub(in crate::config) theta: f64,
    /// The key of theta beside `rope_parameters`.
    pub(in crate::config) theta_key: &'static str,
    /// The default of the share of a head that is rotated, where the family reads one.
    pub(in crate::config) partial: Option<f64>,
    /// The key of that share.
    pub(in crate::config) partial_key: &'static str,
    /// Whether layers with a window have parameters of their own.
    pub(in crate::config) layered: bool,
    /// Whether `su` and `yarn` are names of LongRoPE.
    pub(in crate::config) longrope_names: bool,
    /// Whether neighbours are rotated, not halves.
    pub(in crate::config) neighbours: bool,
}

impl RopeRules {
    /// Whole heads by halves, base 10,000.
    pub(in crate::config) const PLAIN: RopeRules = RopeRules {
        theta: 10_000.0,
        theta_key: "rope_theta",
        partial: None,
        partial_key: "partial_rotary_factor",
        layered: false,
        longrope_names: false,
        neighbours: false,
    };
}

impl FamilyRules {
    /// Whether the family reads `key`, beyond the keys of every family.
    pub(in crate::config) fn reads(&self, key: &str) -> bool {
        self.keys.split_ascii_whitespace().any(|known| known == key)
            || [
                self.norm_eps.0,
                self.activation.0,
                self.rope.theta_key,
                self.rope.partial_key,
            ]
            .contains(&key)
    }

    /// Whether its class does not look at `key`, though its files carry it.
    pub(in crate::config) fn ignores(&self, key: &str) -> bool {
        let mut ignored = self.ignored.split_ascii_whitespace();
        ignored.any(|known| known == key)
    }
}
