//! What differs between families in reading a `config.json`: defaults, keys and names.

use super::DecoderConfig;
use super::fields::ConfigFields;
use super::names::PartNames;
use crate::error::ModelError;

/// The rules of one family. Defaults are those of transformers 5's configuration class.
pub(super) struct FamilyRules {
    /// The name in `architectures`, and its `model_type`.
    pub(super) names: (&'static str, &'static str),
    /// Keys that it reads besides those of every family, separated by spaces.
    pub(super) keys: &'static str,
    /// Keys that its published files have, but its class in transformers does not read.
    pub(super) ignored: &'static str,
    /// `max_position_embeddings`.
    pub(super) positions: usize,
    /// `num_key_value_heads`; without one, as many as query heads.
    pub(super) kv_heads: Option<usize>,
    /// `head_dim`; without one, `hidden_size / num_attention_heads`.
    pub(super) head_dim: Option<usize>,
    /// The default of `original_max_position_embeddings` beside the rotary parameters, where the
    /// class has that key.
    pub(super) original_positions: Option<usize>,
    /// How the rotary embedding is read.
    pub(super) rope: RopeRules,
    /// The key of the norms' epsilon, and its default.
    pub(super) norm_eps: (&'static str, f64),
    /// The key of the activation, and its default.
    pub(super) activation: (&'static str, &'static str),
    /// `tie_word_embeddings`.
    pub(super) tied: bool,
    /// `bos_token_id` and `eos_token_id`.
    pub(super) special: (&'static [u32], &'static [u32]),
    /// The names of its parts.
    pub(super) parts: PartNames,
    /// Reads what makes the decoder differ from a Llama.
    pub(super) differ: Differ,
}

/// Turns a configuration that was read as a Llama's into the family's.
pub(super) type Differ = fn(&ConfigFields, &mut DecoderConfig) -> Result<(), ModelError>;

/// How a family reads its rotary embedding.
#[derive(Clone, Copy)]
pub(super) struct RopeRules {
    /// The default of theta.
    pub(super) theta: f64,
    /// The key of theta beside `rope_parameters`.
    pub(super) theta_key: &'static str,
    /// The default share of a head that is rotated; `None` where the family reads no such key.
    pub(super) partial: Option<f64>,
    /// The key of that share.
    pub(super) partial_key: &'static str,
    /// Whether layers with a window have parameters of their own.
    pub(super) layered: bool,
    /// Whether `su` and `yarn` are names of LongRoPE.
    pub(super) longrope_names: bool,
    /// Whether rotated pairs are interleaved, (2i, 2i + 1), and not (i, i + half).
    pub(super) neighbours: bool,
}

impl RopeRules {
    /// Whole heads, pairs (i, i + half), base 10,000.
    pub(super) const PLAIN: RopeRules = RopeRules {
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
    pub(super) fn reads(&self, key: &str) -> bool {
        self.keys.split_ascii_whitespace().any(|known| known == key)
            || [
                self.norm_eps.0,
                self.activation.0,
                self.rope.theta_key,
                self.rope.partial_key,
            ]
            .contains(&key)
    }

    /// Whether `key` is in published files of the family but not read by its class.
    pub(super) fn ignores(&self, key: &str) -> bool {
        let mut ignored = self.ignored.split_ascii_whitespace();
        ignored.any(|known| known == key)
    }
}
