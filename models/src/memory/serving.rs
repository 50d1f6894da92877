//! Memory of serving.

use concord_kernels::coded::Precision;
use concord_kernels::ops::KvPages;
use concord_kernels::packed::BlockFormat;

use crate::config::{Cut, DecoderConfig};
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
    /// What one token takes over a cut within a layer; 0 where none can be.
    pub cut_row: u64,
}

impl ServingBytes {
    /// Those of a model whose matrices stay in the format that `format` gives by the name (see
    /// [`WeightBytes::kept`]), with keys and values in codes of `key_values`.
    pub fn of(
        config: &DecoderConfig,
        key_values: Precision,
        format: &dyn Fn(&str) -> BlockFormat,
    ) -> Self {
        Self {
            weights: WeightBytes::kept(config, format),
            page_layer: page_bytes(config, 1, key_values),
            row: 4 * config.hidden as u64,
            cut_row: config.experts_to_cut().map_or(0, |_| {
                let within = Cut {
                    layer: 0,
                    expert: 1,
                };
                4 * config.cut_widths(within)[0] as u64
            }),
        }
    }
}

/// Bytes of a page of keys and values in `layers` layers.
pub fn page_bytes(config: &DecoderConfig, layers: usize, precision: Precision) -> u64 {
    KvPages::bytes_per_page(layers, &config.attention_shape(0), precision)
}
