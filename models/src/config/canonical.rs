//! The canonical text of a configuration, from which the identity of a model is derived.
//!
//! Many files describe the same decoder: with defaults or without, with old keys or new ones, as
//! `config.json` or in the header of a GGUF file. The canonical text has every field that changes a
//! number, in a fixed order; floats are the shortest decimals that read back to the same bits. It
//! leaves out the ids of the tokens that begin and end a text.

use super::expert_fields::{ALL_EXPERTS_MAX, EXPERTS_MAX};
use super::parse::{HEAD_DIM_MAX, HEADS_MAX, HIDDEN_MAX, INTERMEDIATE_MAX, LAYERS_MAX, VOCAB_MAX};
use super::rope::POSITIONS_MAX;
use super::{DecoderConfig, ExpertsShape, Family, FusedQkv, Rope, RopeScaling};
use crate::error::ModelError;
use crate::json::shown;

impl DecoderConfig {
    /// The canonical text of this configuration.
    ///
    /// ```
    /// use concord_models::config::DecoderConfig;
    ///
    /// let text = r#"{
    ///     "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    ///     "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
    ///     "max_position_embeddings": 32
    /// }"#;
    /// let short = DecoderConfig::from_json(text)?;
    /// let more = r#"{"head_dim": 16, "rope_theta": 1e4, "bos_token_id": 3,"#;
    /// let whole = text.replacen('{', more, 1);
    /// let whole = DecoderConfig::from_json(&whole)?;
    /// assert_eq!(short.canonical(), whole.canonical());
    /// assert_eq!(DecoderConfig::from_canonical(&short.canonical())?.hidden, 64);
    /// # Ok::<(), concord_models::ModelError>(())
    /// ```
    pub fn canonical(&self) -> String {
        // Families whose parts have the same names differ only in the other fields, so the first
        // such family stands for all of them.
        let parts = self.parts();
        let mut alike = Family::ALL
            .into_iter()
            .filter(|family| family.parts() == parts);
        let named = Self {
            family: alike.next().unwrap_or(self.family),
            ..self.clone().normalised()
        };
        serde_json::to_string(&named).expect("it has strings, numbers and lists alone")
    }

    /// Reads the canonical text of a configuration. The text is not trusted: it is checked as a
    /// `config.json` is.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] where the text is not canonical or a value is out of bounds.
    pub fn from_canonical(text: &str) -> Result<Self, ModelError> {
        let bad = |expected: String| ModelError::BadValue {
            path: "the model's manifest".into(),
            key: "config",
            found: shown(text),
            expected,
        };
        let config: Self = serde_json::from_str(text)
            .map_err(|error| bad(format!("must be the configuration of a decoder: {error}")))?;
        config.check().map_err(bad)?;
        match config.canonical() == text {
            true => Ok(config),
            false => Err(bad("must be in its one form".to_string())),
        }
    }

    /// Checks the invariants of [`DecoderConfig`].
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("hidden", self.hidden, HIDDEN_MAX),
            ("intermediate", self.intermediate, INTERMEDIATE_MAX),
            ("layers", self.layers, LAYERS_MAX),
            ("heads", self.heads, HEADS_MAX),
            ("kv_heads", self.kv_heads, HEADS_MAX),
            ("head_dim", self.head_dim, HEAD_DIM_MAX),
            ("vocab", self.vocab, VOCAB_MAX),
            ("max_positions", self.max_positions, POSITIONS_MAX),
        ];
        for (name, size, most) in sizes {
            if !(1..=most).contains(&size) {
                return Err(format!(
                    "must have `{name}` from 1 to {most}, and has {size}"
                ));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(2) {
            return Err("must have kv_heads that divide heads, and an even head_dim".to_string());
        }
        if self.fused_qkv == Some(FusedQkv::Heads) && self.heads != self.kv_heads {
            return Err("must have as many key heads as query heads where they are fused".into());
        }
        let rotated = self.rotary_dim.unwrap_or(self.head_dim);
        if rotated > self.head_dim || rotated < 2 || !rotated.is_multiple_of(2) {
            return Err("must rotate an even part of a head".to_string());
        }
        let beyond = |layer: &usize| *layer >= self.layers;
        if self.sliding_window.len() != self.layers || self.unrotated.iter().any(beyond) {
            return Err("must speak of its own layers".to_string());
        }
        if self.sliding_window.contains(&Some(0)) {
            return Err("must have windows of one position or more".to_string());
        }
        let numbers = [
            Some(self.norm_eps),
            self.attention_scale,
            self.attention_soft_cap,
            self.embedding_multiplier,
            self.residual_multiplier,
            self.logit_multiplier,
            self.logit_soft_cap,
        ];
        let good = |number: &f32| number.is_finite() && *number > 0.0;
        if !numbers.iter().flatten().all(good) {
            return Err("must have factors above 0".to_string());
        }
        if let Some(experts) = &self.experts {
            experts.check(self.layers)?;
        }
        let mut ropes = [Some(&self.rope), self.local_rope.as_ref()].into_iter();
        match ropes.all(|rope| rope.is_none_or(|rope| rope.holds(rotated))) {
            true => Ok(()),
            false => Err("must have a rotary embedding of finite numbers above 0".to_string()),
        }
    }
}

impl ExpertsShape {
    fn check(&self, layers: usize) -> Result<(), String> {
        let shared = self.shared.map_or(1, |shared| shared.intermediate);
        let widths = [self.intermediate, shared].into_iter();
        let mut widths = widths.map(|width| (1..=INTERMEDIATE_MAX).contains(&width));
        let are_few = (1..=EXPERTS_MAX).contains(&self.count)
            && self.count * layers <= ALL_EXPERTS_MAX
            && (1..=self.count).contains(&self.chosen);
        let is_own = self.dense_layers.iter().all(|layer| *layer < layers);
        let has_factor = self.factor.is_finite() && self.factor > 0.0;
        match are_few && widths.all(|is_good| is_good) && is_own && has_factor {
            true => Ok(()),
            false => Err("must have experts within the bounds of a decoder".to_string()),
        }
    }
}

impl Rope {
    /// Whether its numbers are in bounds where `rotated` elements of each head are rotated.
    fn holds(&self, rotated: usize) -> bool {
        let good = |number: &f64| number.is_finite() && *number > 0.0;
        let length = |positions: &usize| (1..=POSITIONS_MAX).contains(positions);
        good(&self.theta)
            && match &self.scaling {
                RopeScaling::None => true,
                RopeScaling::Linear { factor } => good(factor),
                RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_positions,
                } => {
                    [factor, low_freq_factor, high_freq_factor]
                        .into_iter()
                        .all(good)
                        && high_freq_factor > low_freq_factor
                        && length(original_max_positions)
                }
                RopeScaling::Dynamic {
                    factor,
                    original_max_positions,
                } => good(factor) && length(original_max_positions),
                RopeScaling::Yarn {
                    factor,
                    original_max_positions,
                    beta_fast,
                    beta_slow,
                    truncate: _,
                    attention_factor,
                } => {
                    let numbers = [factor, beta_fast, beta_slow, attention_factor];
                    numbers.into_iter().all(good) && length(original_max_positions)
                }
                RopeScaling::LongRope {
                    short,
                    long,
                    original_max_positions,
                    attention_factor,
                } => {
                    let sets = [short, long].into_iter();
                    let mut whole =
                        sets.map(|set| set.len() == rotated / 2 && set.iter().all(good));
                    whole.all(|is_whole| is_whole)
                        && good(attention_factor)
                        && length(original_max_positions)
                }
            }
    }
}
