//! Memory of serving.

use concord_kernels::coded::Precision;
use concord_kernels::ops::{AttentionShape, KvPages};

use crate::config::DecoderConfig;
use crate::decoder::WeightBytes;

/// Bytes of the parts of a model that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServingBytes {
    /// Weights of each part.
    pub weights: WeightBytes,
    /// Keys and values of one page (128 tokens of one sequence) in one layer.
    pub page_layer: u64,
    /// The hidden state of one token.
    pub row: u64,
}

impl ServingBytes {
    /// The bytes of a model's parts.
    pub fn of(config: &DecoderConfig) -> Self {
        Self {
            weights: WeightBytes::of(config),
            page_layer: page_bytes(config, 1, Precision::I16),
            row: 4 * config.hidden as u64,
        }
    }
}

/// Bytes of a page of keys and values in `layers` layers.
pub fn page_bytes(config: &DecoderConfig, layers: usize, precision: Precision) -> u64 {
    let shape = AttentionShape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        window: None,
        scale: 1.0,
        soft_cap: None,
    };
    KvPages::bytes_per_page(layers, &shape, precision)
}
