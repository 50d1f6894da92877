//! The shape of a decoder, read from a Hugging Face `config.json` and checked.

mod activation;
mod canonical;
mod expert_fields;
mod experts;
mod family;
mod fields;
mod keys;
mod lora;
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
pub use lora::{AdaptedMatrix, LoraSpec, UpdateShape};
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
    /// Largest number of positions, `max_position_embeddings`.
    pub max_positions: usize,
    /// The kind of all norms, those of q and k included.
    pub norm: NormKind,
    /// Added to the mean square, or the variance, in every norm.
    pub norm_eps: f32,
    /// Whether attention and feed-forward layer both take the input of the layer (parallel
    /// residual), instead of the second taking the first's output.
    pub parallel_residual: bool,
    /// The rotary embedding of q and k.
    pub rope: Rope,
    /// The rotary embedding of the layers with a window, where they have their own.
    pub local_rope: Option<Rope>,
    /// Layers, by index, without rotary embedding.
    pub unrotated: Vec<usize>,
    /// How many elements of each head are rotated, from the first one on; `None` means all.
    pub rotary_dim: Option<usize>,
    /// Whether rotated pairs are interleaved, (2i, 2i + 1), and not (i, i + rotated / 2).
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
    /// Where q, k and v are one projection, the order of its rows.
    pub fused_qkv: Option<FusedQkv>,
    /// Whether gate and up projection are one matrix, the rows of the gate first.
    pub fused_gate_up: bool,
    /// Whether the feed-forward layer has a gate.
    pub gated: bool,
    /// The function on the gate, or on the up projection where there is no gate.
    #[serde(with = "activation::ActivationText")]
    pub activation: Activation,
    /// The norm on q and k before RoPE.
    pub qk_norm: Option<QkNorm>,
    /// Attention scores are `q . k` times this; `None` means 1 / sqrt(head_dim).
    pub attention_scale: Option<f32>,
    /// With a cap, scores s become `cap * tanh(s / cap)` before the mask.
    pub attention_soft_cap: Option<f32>,
    /// Whether each query head has an attention sink: a logit that takes part in the softmax but
    /// has no value.
    pub sinks: bool,
    /// The factor on the embedding.
    pub embedding_multiplier: Option<f32>,
    /// The factor on what attention and feed-forward layer add to the residual stream.
    pub residual_multiplier: Option<f32>,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// The factor on the logits; it is applied to the hidden states after the last norm.
    pub logit_multiplier: Option<f32>,
    /// With a cap, logits y become `cap * tanh(y / cap)`.
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

    /// Whether results depend on the declared longest length (dynamic and longrope scaling): a
    /// stage for more positions then computes other bits than one for fewer.
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

    /// The factor on the embedding that noise on it gets as well: in Gemma the factor is part of
    /// the embedding, whose output gets the noise.
    pub(crate) fn noise_multiplier(&self) -> f64 {
        match self.family {
            Family::Gemma | Family::Gemma2 | Family::Gemma3 => 1.0,
            _ => self.embedding_multiplier.map_or(1.0, f64::from),
        }
    }

    /// Width of all key (or value) heads together: `kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
