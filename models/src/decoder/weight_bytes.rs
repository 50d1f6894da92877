//! What the weights of a stage take in memory.

use concord_kernels::Device;
use concord_kernels::packed::BlockFormat;

use super::source::TensorSource;
use crate::config::{DecoderConfig, Span, TensorSpec};

/// Bytes of the weights of each part of a model, as a stage holds them: an embedding, norms and
/// biases as f32 (4 bytes an element); what is multiplied as codes (2 bytes an element and 4 a row,
/// at every precision).
///
/// [`Self::kept`] counts the matrices that stay as their file has them: its bytes, and 4 a row.
/// Their pages are those of the file's map, which the system drops and reads again as it needs.
///
/// While a stage loads, it also takes a slice of one matrix as f32: 4 MiB or one row; of fused
/// experts, a whole tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBytes {
    /// One layer; the largest one, where some layers have experts and others do not.
    pub layer: u64,
    /// One expert of a layer that can be cut between them, of that; else 0.
    pub expert: u64,
    /// The embedding, on the first stage.
    pub embed: u64,
    /// Final norm and head, on the last stage. Where they are tied and codes, these are its own.
    pub head: u64,
    /// Bytes that both ends count, and a stage with both ends holds once: those of a tied embedding
    /// that stays packed.
    pub shared: u64,
}

impl WeightBytes {
    /// Those of a model of which nothing stays packed: on a GPU, or where all of it is trained.
    pub fn of(config: &DecoderConfig) -> Self {
        Self::kept(config, &|_| BlockFormat::F32)
    }

    /// Those of a model whose matrices stay in the format that `format` gives by the name, on the
    /// host; F32 becomes codes.
    pub fn kept(config: &DecoderConfig, format: &dyn Fn(&str) -> BlockFormat) -> Self {
        Self::in_layers(config, Span::from(0..config.layers as u32), format)
    }

    /// Bytes of a stage as `device` loads it from `source`, which may have its tensors alone. A GPU
    /// keeps nothing packed.
    pub fn loaded(
        config: &DecoderConfig,
        layers: Span,
        positions: u64,
        source: &dyn TensorSource,
        device: &Device,
    ) -> u64 {
        let bytes = match device {
            Device::Cuda(_) => Self::of(config),
            Device::Cpu(_) | Device::Reference => {
                Self::in_layers(config, layers, &|name| source.format(name))
            }
        };
        bytes.stage(config, layers, positions)
    }

    /// With the largest of `layers` for each layer.
    fn in_layers(
        config: &DecoderConfig,
        layers: Span,
        format: &dyn Fn(&str) -> BlockFormat,
    ) -> Self {
        let (vocab, hidden) = (config.vocab as u64, config.hidden as u64);
        let parts = config.parts();
        let end = |name: String| TensorSpec {
            name,
            shape: vec![config.vocab, config.hidden],
        };
        let embed = end(parts.embed_weight());
        let head = match config.tie_embeddings {
            true => embed.clone(),
            false => end(parts.head_weight()),
        };
        let in_layer = |layer: u32| {
            let tensors = config.layer_tensors(layer as usize).into_iter();
            tensors.map(|tensor| held(&tensor, format)).sum()
        };
        let of_expert = config.expert_matrices().into_iter();
        let in_expert = of_expert.map(|tensor| held(&tensor, format)).sum();
        let packed = packed(&embed, format);
        Self {
            layer: layers.layers().map(in_layer).max().unwrap_or(0),
            expert: in_expert,
            embed: packed.map_or(4 * vocab * hidden, |bytes| bytes + 4 * vocab),
            head: held(&head, format)
                + if config.head_bias { 4 * vocab } else { 0 }
                + 4 * hidden * if config.norm.has_bias() { 2 } else { 1 },
            shared: packed.filter(|_| config.tie_embeddings).unwrap_or(0),
        }
    }

    /// Those of a stage, with sine and cosine of so many positions.
    pub fn stage(&self, config: &DecoderConfig, layers: Span, positions: u64) -> u64 {
        let rotated = config.rotary_dim.unwrap_or(config.head_dim);
        let tables = 1 + u64::from(config.local_rope.is_some());
        let experts = config.experts_to_cut().unwrap_or(0);
        let (is_first, is_last) = (layers.is_first(), layers.is_last(config.layers));
        let part = |is_there: bool, bytes: u64| if is_there { bytes } else { 0 };
        layers.sum(experts, self.layer, self.expert)
            + part(is_first, self.embed)
            + part(is_last, self.head)
            - part(is_first && is_last, self.shared)
            + 4 * positions * rotated as u64 * tables
    }
}

/// Bytes of a matrix that stays packed.
fn packed(tensor: &TensorSpec, format: &dyn Fn(&str) -> BlockFormat) -> Option<u64> {
    let &[rows, cols] = tensor.shape.as_slice() else {
        return None;
    };
    let format = Some(format(&tensor.name)).filter(|format| *format != BlockFormat::F32);
    Some(format?.row_bytes(cols)? as u64 * rows as u64)
}

fn held(tensor: &TensorSpec, format: &dyn Fn(&str) -> BlockFormat) -> u64 {
    match tensor.shape.as_slice() {
        [rows, cols] => {
            let codes = 2 * (rows * cols) as u64;
            packed(tensor, format).unwrap_or(codes) + 4 * *rows as u64
        }
        // Transposed matrices of experts.
        [experts, cols, rows] => (2 * experts * rows * cols + 4 * experts * rows) as u64,
        other => 4 * other.iter().product::<usize>() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(is_tied: bool) -> DecoderConfig {
        DecoderConfig::from_json(&format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32,
                "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "vocab_size": 10, "max_position_embeddings": 32,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": {is_tied}}}"#
        ))
        .unwrap()
    }

    /// Elements of the matrices of a layer, and their rows.
    const ELEMENTS: u64 = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32;
    const ROWS: u64 = 32 + 16 + 16 + 32 + 64 + 64 + 32;

    #[test]
    fn the_stages_of_a_model_add_up_to_it() {
        let config = config(false);
        let bytes = WeightBytes::of(&config);
        let stage = |start, end| bytes.stage(&config, Span::from(start..end), 0);
        assert_eq!(stage(0, 1) + stage(1, 2), stage(0, 2));
        // Embedding as f32; head as codes with an exponent a row; final norm; two norms a layer.
        let layer = 2 * ELEMENTS + 4 * ROWS + 2 * 4 * 32;
        assert_eq!(stage(0, 2), 4 * 320 + 2 * 320 + 4 * 10 + 4 * 32 + 2 * layer);
    }

    #[test]
    fn what_stays_packed_takes_its_bytes_and_an_exponent_a_row() {
        // 34 bytes of Q8_0 are 32 numbers.
        let packed = |_: &str| BlockFormat::Q8_0;
        let layer = 34 * ELEMENTS / 32 + 4 * ROWS + 2 * 4 * 32;
        let apart = config(false);
        let whole = WeightBytes::kept(&apart, &packed).stage(&apart, Span::from(0..2), 0);
        let end = 34 * 10 + 4 * 10;
        assert_eq!(whole, 2 * end + 4 * 32 + 2 * layer);
        // One matrix for both ends, with exponents for each.
        let tied = config(true);
        let bytes = WeightBytes::kept(&tied, &packed);
        let whole = bytes.stage(&tied, Span::from(0..2), 0);
        assert_eq!(whole, 34 * 10 + 2 * 4 * 10 + 4 * 32 + 2 * layer);
        let apart =
            bytes.stage(&tied, Span::from(0..1), 0) + bytes.stage(&tied, Span::from(1..2), 0);
        assert_eq!(apart, whole + 34 * 10);
        // What is not known, or is no whole blocks, becomes codes.
        let wide = |_: &str| BlockFormat::Q4K;
        let coded = WeightBytes::kept(&tied, &wide);
        assert_eq!(coded, WeightBytes::of(&tied));
    }
}
