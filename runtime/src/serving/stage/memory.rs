//! How much memory a stage takes.

use concord_models::config::DecoderConfig;
use concord_models::decoder::WeightBytes;
use concord_models::memory::page_bytes as page_bytes_of;
use concord_proto::Layers;
use concord_proto::serving::Deployment;

use crate::{RuntimeError, spec};

/// Bytes of the weights of a stage. Quantized weights take 16 bits at every precision.
pub(super) fn stage_bytes(config: &DecoderConfig, layers: Layers, deployment: &Deployment) -> u64 {
    let positions = deployment.positions.into();
    WeightBytes::of(config).stage(config, spec::span(layers), positions)
}

/// Bytes of a page of keys and values in `layers`: none where these are experts alone.
///
/// # Errors
/// [`RuntimeError::Unsupported`] for a precision that this build does not know.
pub(crate) fn page_bytes(
    config: &DecoderConfig,
    layers: Layers,
    deployment: &Deployment,
) -> Result<u64, RuntimeError> {
    let precision = spec::precision(deployment.precision.activations)?;
    Ok(page_bytes_of(config, layers.attended().len(), precision))
}

#[cfg(test)]
mod tests {
    use concord_proto::{Digest, PrecisionSpec};

    use super::*;

    #[test]
    fn the_stages_of_a_model_add_up_to_it() {
        let config = DecoderConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
                "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "vocab_size": 10, "max_position_embeddings": 32,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#,
        )
        .unwrap();
        let deployment = Deployment {
            arithmetic: 1,
            model: Digest::default(),
            tokenizer: Digest::default(),
            layers: 2,
            vocab: 10,
            positions: 0,
            precision: PrecisionSpec {
                weights: 16,
                activations: 16,
            },
        };
        let bytes = |start, end| stage_bytes(&config, Layers::new(start, end), &deployment);
        assert_eq!(bytes(0, 1) + bytes(1, 2), bytes(0, 2));
        // Embedding 10 x 8 as f32; head quantized with an exponent a row; final norm. A layer: q
        // 64, k 32, v 32, o 64, gate, up and down 128 each, quantized in 8, 4, 4, 8, 16, 16 and 8
        // rows; two norms.
        let layer = 2 * (64 + 32 + 32 + 64 + 3 * 128) + 4 * 64 + 4 * 16;
        assert_eq!(bytes(0, 2), 4 * 80 + 2 * 80 + 4 * 10 + 4 * 8 + 2 * layer);
    }
}
