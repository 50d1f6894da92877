//! The inputs and outputs of attention, on every device.

use std::borrow::Cow;
use std::ops::Range;

use super::cap::ScoreCap;
use crate::coded::Coded;
use crate::reference::lengths::Lengths;
use crate::{Buffer, KernelError, Tensor};

/// Heads and masks of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head h reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// A query sees itself and at most this many minus one keys before it.
    pub window: Option<u32>,
    /// Multiplies the scores: `1 / sqrt(head_dim)` in most models.
    pub scale: f32,
    /// Scores pass `cap * tanh(score / cap)` before mask and softmax; a number above 0.
    pub soft_cap: Option<f32>,
}

impl AttentionShape {
    /// First key that the query at `position` sees.
    pub fn first_key(&self, position: usize) -> usize {
        self.window
            .map_or(0, |window| (position + 1).saturating_sub(window as usize))
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The factors of the soft cap, where there is one.
    pub fn score_cap(&self) -> Option<ScoreCap> {
        self.soft_cap.map(ScoreCap::new)
    }
}

/// Keys and values of one sequence from position 0, each row one head of one token.
#[derive(Clone, Debug)]
pub struct CodedKv {
    /// Keys, `[tokens * kv_heads, head_dim]`.
    pub k: Coded,
    /// Values, of the same shape.
    pub v: Coded,
}

impl CodedKv {
    /// The codes on the host: themselves, or a copy of what lies on a GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn on_host(&self) -> Result<Cow<'_, Self>, KernelError> {
        let (k, v) = (self.k.on_host()?, self.v.on_host()?);
        if let (Cow::Borrowed(_), Cow::Borrowed(_)) = (&k, &v) {
            return Ok(Cow::Borrowed(self));
        }
        let (k, v) = (k.into_owned(), v.into_owned());
        Ok(Cow::Owned(Self { k, v }))
    }
}

/// Coded queries, keys and values of a run of tokens.
#[derive(Clone, Debug)]
pub struct AttentionCodes {
    /// Queries times `scale * log2(e)`, `[tokens * heads, head_dim]`.
    pub queries: Coded,
    /// Keys and values.
    pub kv: CodedKv,
}

impl AttentionCodes {
    /// Its tokens as one document.
    pub fn as_one(&self, shape: &AttentionShape) -> Lengths {
        Lengths::uniform(1, self.queries.rows / shape.heads)
    }

    /// Query heads and key heads of the `tokens` of one sequence.
    pub(crate) fn part(&self, tokens: Range<usize>, shape: &AttentionShape) -> Cow<'_, Self> {
        if tokens.len() * shape.heads == self.queries.rows {
            return Cow::Borrowed(self);
        }
        let part =
            |coded: &Coded, heads: usize| coded.part(tokens.start * heads, tokens.len() * heads);
        Cow::Owned(Self {
            queries: part(&self.queries, shape.heads),
            kv: CodedKv {
                k: part(&self.kv.k, shape.kv_heads),
                v: part(&self.kv.v, shape.kv_heads),
            },
        })
    }
}

/// What the forward pass leaves for the backward pass.
#[derive(Clone, Debug)]
pub struct AttentionOut {
    /// `[tokens, heads * head_dim]`.
    pub out: Tensor,
    /// The integer maximum of each (token, head), over keys and sink.
    pub max: Buffer<i32>,
    /// The denominator of each (token, head), at that maximum, including the sink's term.
    pub sum: Tensor,
}

/// Gradients of queries, keys and values, as
/// [`Device::attention_codes`](crate::Device::attention_codes) took them, and of the sinks.
#[derive(Clone, Debug)]
pub struct AttentionGradients {
    /// `[tokens, heads * head_dim]`.
    pub dq: Tensor,
    /// `[tokens, kv_heads * head_dim]`.
    pub dk: Tensor,
    /// `[tokens, kv_heads * head_dim]`.
    pub dv: Tensor,
    /// `[heads]`, where there are sinks.
    pub d_sinks: Option<Tensor>,
}
