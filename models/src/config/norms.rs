//! Kinds of norms.

use serde::{Deserialize, Serialize};

use super::DecoderConfig;

/// What a norm computes of a row x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NormKind {
    /// `x / rms(x) * w`.
    Rms,
    /// `x / rms(x) * (1 + w)`; 1 + w is rounded once, when the weight is read.
    RmsPlusOne,
    /// `(x - mean(x)) / deviation(x) * w + b`.
    Layer,
    /// As `Layer`, without b.
    LayerWithoutBias,
}

impl NormKind {
    /// Whether it has a bias beside its weight.
    pub fn has_bias(self) -> bool {
        self == NormKind::Layer
    }
}

/// The elements over which q and k are normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QkNorm {
    /// Each head on its own; all heads share the same `head_dim` weights.
    Heads,
    /// All heads of a token together.
    Width,
}

impl QkNorm {
    /// The module of the norm of q within a layer.
    pub(crate) const Q_NAME: &'static str = "self_attn.q_norm";
    /// The module of the norm of k within a layer.
    pub(crate) const K_NAME: &'static str = "self_attn.k_norm";

    /// How many weights the norms of q and of k have.
    pub(crate) fn widths(self, config: &DecoderConfig) -> [usize; 2] {
        match self {
            QkNorm::Heads => [config.head_dim; 2],
            QkNorm::Width => [config.q_dim(), config.kv_dim()],
        }
    }
}
