//! What the weights of a stage take in memory.

use crate::config::{DecoderConfig, Span, TensorSpec};

/// Bytes of the weights of each part of a model, as a stage holds them on the host: an embedding,
/// norms and biases as f32 (4 bytes an element); what is multiplied as codes (2 bytes an element
/// and 4 a row, at every precision).
///
/// What is not trained and packed in its file, or of 16 bits there, takes the bytes that it has in
/// the file, and no more than this: its pages are those of the file's map, which the system drops
/// and reads again as it needs. An embedding then takes these bytes, too.
///
/// While a stage loads it takes a slice of one matrix as f32 on top, 4 MiB or one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBytes {
    /// One layer; the largest, where some have experts and others do not.
    pub layer: u64,
    /// One expert of a layer that can be cut between them, of that; else 0.
    pub expert: u64,
    /// The embedding, on the first stage.
    pub embed: u64,
    /// Final norm and head, on the last stage. Where they are tied it is still codes of its own.
    pub head: u64,
}

impl WeightBytes {
    /// Those of a model.
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
            expert: config.expert_matrices().iter().map(held).sum(),
            embed: 4 * vocab * hidden,
            head: held(&head)
                + if config.head_bias { 4 * vocab } else { 0 }
                + 4 * hidden * if config.norm.has_bias() { 2 } else { 1 },
        }
    }

    /// Those of a stage, with sine and cosine of so many positions.
    pub fn stage(&self, config: &DecoderConfig, layers: Span, positions: u64) -> u64 {
        let rotated = config.rotary_dim.unwrap_or(config.head_dim);
        let tables = 1 + u64::from(config.local_rope.is_some());
        let experts = config.experts_to_cut().unwrap_or(0);
        let part = |is_there: bool, bytes: u64| if is_there { bytes } else { 0 };
        layers.sum(experts, self.layer, self.expert)
            + part(layers.is_first(), self.embed)
            + part(layers.is_last(config.layers), self.head)
            + 4 * positions * rotated as u64 * tables
    }
}

fn held(tensor: &TensorSpec) -> u64 {
    match tensor.shape.as_slice() {
        [rows, cols] => 2 * (rows * cols) as u64 + 4 * *rows as u64,
        // Transposed matrices of experts.
        [experts, cols, rows] => (2 * experts * rows * cols + 4 * experts * rows) as u64,
        other => 4 * other.iter().product::<usize>() as u64,
    }
}
