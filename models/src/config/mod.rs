//! What a Hugging Face `config.json` says of a decoder, checked.

mod family;
mod fields;
mod keys;
mod parse;
mod projection;
mod rewrite;
mod rope;
mod tensors;
mod training;
mod windows;

pub use family::Family;
pub use projection::Projection;
pub(crate) use rewrite::{with_value, without_key};
pub use rope::{Rope, RopeScaling};
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
#[derive(Clone, Debug, PartialEq)]
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
    /// Added to the mean square in every RMSNorm.
    pub rms_eps: f32,
    /// The rotary embedding of q and k.
    pub rope: Rope,
    /// Per layer: with `Some(w)`, position i sees the positions j with `i - w < j <= i`; with
    /// `None`, all j <= i.
    pub sliding_window: Vec<Option<u32>>,
    /// Whether q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection of attention has a bias.
    pub o_bias: bool,
    /// Whether gate, up and down projections have a bias.
    pub mlp_bias: bool,
    /// Whether q and k pass an RMSNorm of `head_dim` weights, per head, before RoPE.
    pub qk_norm: bool,
    /// Whether the head is the embedding; then there is no `lm_head.weight`.
    pub tie_embeddings: bool,
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Tokens that end a text, in the order of the file; may be empty.
    pub eos: Vec<u32>,
}

impl DecoderConfig {
    /// Width of all query heads together: `heads * head_dim`.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together: `kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
