//! The profiles of models for planners, from the formulas in `concord_models::memory`.

use concord_models::config::DecoderConfig;
use concord_models::decoder::Trainable;
use concord_models::memory::{ServingBytes, TrainingBytes, TrainingRun};
use concord_proto::client::ModelProfile;
use concord_proto::serving::ServingProfile;

/// The profile of a model that is fine-tuned.
pub fn training(config: &DecoderConfig, run: &TrainingRun) -> ModelProfile {
    let bytes = TrainingBytes::of(config, run);
    let tokens = u64::from(run.micro_batch_size) * u64::from(run.sequence_len);
    // Scores and weighted sums; on average a query sees half of the sequence.
    let attention = u64::from(run.sequence_len) * config.q_dim() as u64;
    ModelProfile {
        layer_macs: layer_weights(config) + attention,
        head_macs: head_weights(config),
        layer_bytes: bytes.layer.weights + bytes.at_work(),
        embed_bytes: bytes.embed.weights + bytes.embed.trained(),
        head_bytes: bytes.head.weights + bytes.head.trained() + bytes.logits,
        layer_state_bytes: bytes.layer.trained(),
        layer_activation_bytes: bytes.in_flight(),
        workspace_bytes: bytes.workspace,
        boundary_bytes: bytes.boundary,
        microbatch_tokens: tokens,
        backward_percent: match run.trainable {
            Trainable::Full => 200,
            Trainable::Lora { .. } | Trainable::Nothing => 150,
        },
    }
}

/// The profile of a model that is served.
pub fn serving(config: &DecoderConfig) -> ServingProfile {
    let bytes = ServingBytes::of(config);
    ServingProfile {
        layer_macs: layer_weights(config),
        head_macs: head_weights(config),
        layer_bytes: bytes.weights.layer,
        embed_bytes: bytes.weights.embed,
        head_bytes: bytes.weights.head,
        page_layer_bytes: bytes.page_layer,
        row_bytes: bytes.row,
    }
}

/// Multiply-adds of a token in the matrices of the largest layer.
fn layer_weights(config: &DecoderConfig) -> u64 {
    let layers = (0..config.layers).map(|layer| config.layer_macs(layer));
    layers.max().unwrap_or(0)
}

fn head_weights(config: &DecoderConfig) -> u64 {
    (config.vocab * config.hidden) as u64
}
