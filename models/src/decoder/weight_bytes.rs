//! What the weights of a stage take in memory.

use std::ops::Range;

use crate::config::{DecoderConfig, TensorSpec};

/// Bytes of the weights of each part of a model, as a stage holds them on the host: an embedding,
/// norms and biases as f32 (4 bytes an element); matrices as codes (2 bytes an element and 4 a row,
/// at every precision).
///
/// This is an upper bound for a matrix or an embedding that is not trained, and packed or of 16
/// bits in its file: it takes its bytes in the file, in pages of the file's memory map, which the
/// system can drop and read again.
///
/// While a stage loads, it also takes a slice of one matrix as f32: 4 MiB or one row; of fused
/// experts, a whole tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBytes {
    /// One layer; the largest one, where some layers have experts and others do not.
    pub layer: u64,
    /// The embedding, on the first stage.
    pub embed: u64,
    /// Final norm and head, on the last stage. A tied head still has codes of its own.
    pub head: u64,
}

impl WeightBytes {
    /// The bytes of a model's parts.
    pub fn of(config: &DecoderConfig) -> Self {
        let (vocab, hidden) = (config.vocab as u64, config.hidden as u64);
        let head = TensorSpec {
            name: String::new(),
            shape: vec![config.vocab, config.hidden],
        };
        Self {
            layer: (0..config.layers)
                .map(|layer| config.layer_tensors(layer).iter().map(held).sum())
                .max()
                .unwrap_or(0),
            embed: 4 * vocab * hidden,
            head: held(&head)
                + if config.head_bias { 4 * vocab } else { 0 }
                + 4 * hidden * if config.norm.has_bias() { 2 } else { 1 },
        }
    }

    /// The bytes of a stage of `layers`, with rotary tables of `positions`.
    pub fn stage(&self, config: &DecoderConfig, layers: Range<u32>, positions: u64) -> u64 {
        let rotated = config.rotary_dim.unwrap_or(config.head_dim);
        let tables = 1 + u64::from(config.local_rope.is_some());
        let is_last = layers.end as usize == config.layers;
        let part = |is_there: bool, bytes: u64| if is_there { bytes } else { 0 };
        u64::from(layers.end - layers.start) * self.layer
            + part(layers.start == 0, self.embed)
            + part(is_last, self.head)
            + 4 * positions * rotated as u64 * tables
    }
}

fn held(tensor: &TensorSpec) -> u64 {
    match tensor.shape.as_slice() {
        [rows, cols] => 2 * (rows * cols) as u64 + 4 * *rows as u64,
        // Fused experts, whose matrices are transposed.
        [experts, cols, rows] => (2 * experts * rows * cols + 4 * experts * rows) as u64,
        other => 4 * other.iter().product::<usize>() as u64,
    }
}
