//! What a Hugging Face `config.json` says of a decoder, checked.

mod activation;
mod canonical;
mod expert_fields;
mod experts;
mod family;
mod fields;
mod keys;
mod names;
mod normal;
mod norms;
mod parse;
mod projection;
mod rewrite;
mod rope;
mod rules;
mod span;
mod tensors;
mod training;
mod windows;

use concord_kernels::ops::{Activation, AttentionShape};
use serde::{Deserialize, Serialize};

pub use experts::{
    ExpertLayout, ExpertNames, ExpertsShape, LayerMatrix, RouterScores, SharedExpertShape,
};
pub use family::Family;
pub use names::PartNames;
pub(crate) use normal::usual_attention_scale;
pub use norms::{NormKind, QkNorm};
pub use projection::{FusedQkv, Projection};
pub(crate) use rewrite::{with_value, without_key};
pub use rope::{Rope, RopeScaling};
pub(crate) use span::expert_of;
pub use span::{Cut, Span};
pub(crate) use tensors::SINKS;
pub use tensors::{TensorPlace, TensorSpec};

/// The shape of a decoder. The families differ only in these fields.
///
/// ```
/// use concord_models::config::DecoderConfig;
///
/// let text = r#"{
///     "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
///     "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
///     "max_position_embeddings": 32, "rms_norm_eps": 1e-5
/// }"#;
/// let config = DecoderConfig::from_json(text)?;
/// assert_eq!((config.head_dim, config.kv_heads), (16, 4));
///
/// // What Concord would compute otherwise is refused by name.
/// let scaled = text.replacen('{', r#"{"logit_scale": 2.0,"#, 1);
/// let error = DecoderConfig::from_json(&scaled).unwrap_err().to_string();
/// assert!(error.contains("`logit_scale` is 2.0"), "{error}");
/// # Ok::<(), concord_models::ModelError>(())
/// ```
///
/// Invariants, checked when it is read: every size is at least 1 and within the limits of
/// `config/parse.rs`, `kv_heads` divides `heads`, `head_dim` is even, `sliding_window` has
/// `layers` entries, and every value is finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// The family, for messages and for writing `config.json`.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of one head; not always `hidden / heads`.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Positions that the model knows.
    pub max_positions: usize,
    /// What the norms of the residual stream compute; those of q and k are of the same kind.
    pub norm: NormKind,
    /// Added to the mean square, or the variance, in every norm.
    pub norm_eps: f32,
    /// Whether attention and feed-forward layer both read what enters the layer.
    pub parallel_residual: bool,
    /// The rotary embedding of q and k.
    pub rope: Rope,
    /// Another one for the layers that have a window.
    pub local_rope: Option<Rope>,
    /// Layers, by their index, that rotate nothing.
    pub unrotated: Vec<usize>,
    /// How much of each head is rotated, from its first element on; without a number, all.
    pub rotary_dim: Option<usize>,
    /// Whether pairs are the neighbours (2i, 2i + 1), not (i, i + half of what is rotated).
    pub rope_neighbours: bool,
    /// Per layer: with `Some(w)`, position i sees the positions j with `i - w < j <= i`; with
    /// `None`, all j <= i.
    pub sliding_window: Vec<Option<u32>>,
    /// Whether q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub o_bias: bool,
    /// Whether gate, up and down projections have a bias.
    pub mlp_bias: bool,
    /// The experts of the layers that have them instead of the feed-forward layer.
    pub experts: Option<ExpertsShape>,
    /// Where q, k and v are one projection, how its rows lie.
    pub fused_qkv: Option<FusedQkv>,
    /// Whether gate and up projection are one, the gate first.
    pub fused_gate_up: bool,
    /// Whether the feed-forward layer has a gate.
    pub gated: bool,
    /// The function of its gate, or of its up projection where there is no gate.
    #[serde(with = "activation::ActivationText")]
    pub activation: Activation,
    /// The norm that q and k pass before RoPE.
    pub qk_norm: Option<QkNorm>,
    /// Scores are `q . k` times it; without a number, 1 / sqrt(head_dim).
    pub attention_scale: Option<f32>,
    /// Scores s become `cap * tanh(s / cap)`, before the mask.
    pub attention_soft_cap: Option<f32>,
    /// Whether each query head has a logit that takes its share of the softmax and adds no value.
    pub sinks: bool,
    /// What the embedding is multiplied by.
    pub embedding_multiplier: Option<f32>,
    /// What attention and feed-forward layer add is multiplied by it.
    pub residual_multiplier: Option<f32>,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Logits are multiplied by it: the hidden states after the last norm are.
    pub logit_multiplier: Option<f32>,
    /// Logits y become `cap * tanh(y / cap)`.
    pub logit_soft_cap: Option<f32>,
    /// Whether the head is the embedding; then there is no `lm_head.weight`.
    pub tie_embeddings: bool,
    /// Token that begins a text.
    #[serde(skip)]
    pub bos: Option<u32>,
    /// Tokens that end a text, in the order of the file; may be empty.
    #[serde(skip)]
    pub eos: Vec<u32>,
}

impl DecoderConfig {
    /// Width of all query heads together: `heads * head_dim`.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// The sizes of the attention of a layer.
    pub(crate) fn attention_shape(&self, layer: usize) -> AttentionShape {
        AttentionShape {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            window: self.sliding_window[layer],
            soft_cap: self.attention_soft_cap,
            scale: self
                .attention_scale
                .unwrap_or_else(|| usual_attention_scale(self.head_dim)),
        }
    }

    /// The rotary embedding of a layer: 0 is [`DecoderConfig::rope`], 1
    /// [`DecoderConfig::local_rope`]. `None` rotates nothing.
    pub(crate) fn rope_of(&self, layer: usize) -> Option<usize> {
        let is_local = self.local_rope.is_some() && self.sliding_window[layer].is_some();
        let is_rotated = !self.unrotated.contains(&layer);
        is_rotated.then_some(usize::from(is_local))
    }

    /// Whether what is computed of a token depends on the longest length that is declared: a stage
    /// for more positions then computes something else than one for fewer.
    pub fn depends_on_length(&self) -> bool {
        let ropes = [Some(&self.rope), self.local_rope.as_ref()];
        let depends = |rope: &Rope| {
            matches!(
                rope.scaling,
                RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. }
            )
        };
        ropes.into_iter().flatten().any(depends)
    }

    /// The layers without a window.
    pub(crate) fn unwindowed(&self) -> Vec<usize> {
        let layers = self.sliding_window.iter().enumerate();
        layers
            .filter(|(_, window)| window.is_none())
            .map(|(layer, _)| layer)
            .collect()
    }

    /// The names of its parts.
    pub(crate) fn parts(&self) -> &'static PartNames {
        self.family.parts()
    }

    /// Width of all key (or value) heads together: `kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
