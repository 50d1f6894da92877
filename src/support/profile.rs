//! The profiles of models for planners, from the formulas in `concord_models::memory`.

use std::collections::BTreeMap;

use concord_kernels::coded::Precision;
use concord_kernels::packed::BlockFormat;
use concord_models::ModelError;
use concord_models::config::DecoderConfig;
use concord_models::decoder::Trainable;
use concord_models::memory::{ServingBytes, TrainingBytes, TrainingRun};
use concord_models::weights::ModelFolder;
use concord_proto::ExpertCuts;
use concord_proto::client::ModelProfile;
use concord_proto::serving::ServingProfile;

/// The formats of a model's matrices, by name: in these they stay, where they are not trained, in
/// processes that compute on a CPU. Empty for a pool that may have GPUs, which hold codes.
#[derive(Clone, Debug, Default)]
pub struct KeptFormats(BTreeMap<String, BlockFormat>);

impl KeptFormats {
    /// Those of a model.
    ///
    /// # Errors
    /// Naming the tensor that is missing, or of a format that is not read.
    pub fn of(folder: &ModelFolder) -> Result<Self, ModelError> {
        let specs = folder.config().tensors().into_iter();
        let format = |name: String| {
            let form = folder.stored_form(&name)?;
            Ok((name, form.format))
        };
        let formats: Result<_, ModelError> = specs.map(|spec| format(spec.name)).collect();
        formats.map(Self)
    }

    /// The format of a tensor; F32 where nothing is known of it.
    pub fn get(&self, name: &str) -> BlockFormat {
        self.0.get(name).copied().unwrap_or(BlockFormat::F32)
    }
}

/// Of a model that is fine-tuned.
pub fn training(config: &DecoderConfig, run: &TrainingRun, kept: &KeptFormats) -> ModelProfile {
    let bytes = TrainingBytes::of(config, run, &|name| kept.get(name));
    let tokens = u64::from(run.micro_batch_size) * u64::from(run.sequence_len);
    // Scores and weighted sums; on average a query sees half of the sequence.
    let attention = u64::from(run.sequence_len) * config.q_dim() as u64;
    ModelProfile {
        layer_macs: layer_weights(config) + attention,
        head_macs: head_weights(config),
        layer_bytes: bytes.layer.weights,
        embed_bytes: bytes.embed.weights + bytes.embed.trained(),
        head_bytes: bytes.head.weights + bytes.head.trained() + bytes.logits,
        shared_bytes: bytes.shared.weights + bytes.shared.trained(),
        layer_state_bytes: bytes.layer.trained(),
        layer_gradient_bytes: bytes.layer.gradient,
        layer_activation_bytes: bytes.in_flight(),
        workspace_bytes: bytes.workspace,
        boundary_bytes: bytes.boundary,
        microbatch_tokens: tokens,
        backward_percent: match run.trainable {
            Trainable::Full => 200,
            Trainable::Lora(_) | Trainable::Nothing => 150,
        },
        cuts: ExpertCuts {
            experts: experts(config),
            expert_bytes: bytes.expert.weights,
            expert_state_bytes: bytes.expert.trained(),
            boundary_bytes: bytes.cut,
        },
    }
}

/// Of a model that is fine-tuned and evaluated in microbatches of `batch` sequences. These take a
/// workspace; nothing of them is kept for a way back, and the coordinator counts what is kept of
/// them for checkers.
pub fn evaluated(
    config: &DecoderConfig,
    run: &TrainingRun,
    batch: u32,
    kept: &KeptFormats,
) -> ModelProfile {
    let wide = TrainingRun {
        micro_batch_size: run.micro_batch_size.max(batch),
        ..run.clone()
    };
    let wide = training(config, &wide, kept);
    ModelProfile {
        head_bytes: wide.head_bytes,
        workspace_bytes: wide.workspace_bytes,
        ..training(config, run, kept)
    }
}

/// Of a model that is served, with keys and values in codes of `key_values`.
pub fn serving(
    config: &DecoderConfig,
    kept: &KeptFormats,
    key_values: Precision,
) -> ServingProfile {
    let bytes = ServingBytes::of(config, key_values, &|name| kept.get(name));
    ServingProfile {
        layer_macs: layer_weights(config),
        head_macs: head_weights(config),
        layer_bytes: bytes.weights.layer,
        embed_bytes: bytes.weights.embed,
        head_bytes: bytes.weights.head,
        shared_bytes: bytes.weights.shared,
        page_layer_bytes: bytes.page_layer,
        row_bytes: bytes.row,
        cuts: ExpertCuts {
            experts: experts(config),
            expert_bytes: bytes.weights.expert,
            expert_state_bytes: 0,
            boundary_bytes: bytes.cut_row,
        },
    }
}

/// Experts between which layers can be cut; 0 where they cannot.
fn experts(config: &DecoderConfig) -> u32 {
    let count = config.experts_to_cut().unwrap_or(0);
    u32::try_from(count).unwrap_or(0)
}

/// Multiply-adds of a token in the matrices of a layer. Where layers differ, the planner counts
/// with the largest.
fn layer_weights(config: &DecoderConfig) -> u64 {
    let layers = (0..config.layers).map(|layer| config.layer_macs(layer));
    layers.max().unwrap_or(0)
}

fn head_weights(config: &DecoderConfig) -> u64 {
    (config.vocab * config.hidden) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an adapter's gradients take grows with the microbatches of an update, and an evaluation
    /// has no gradients, however many microbatches it has.
    #[test]
    fn an_evaluation_takes_a_workspace_and_nothing_else() {
        let config = DecoderConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
                "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false}"#,
        );
        let (config, kept) = (config.unwrap(), KeptFormats::default());
        let run = TrainingRun::lora(4, 32);
        let plain = training(&config, &run, &kept);
        assert_eq!(evaluated(&config, &run, 1, &kept), plain);
        let wide = evaluated(&config, &run, 8, &kept);
        assert!(wide.workspace_bytes > plain.workspace_bytes);
        assert!(
            wide.head_bytes > plain.head_bytes,
            "the logits of its last stage"
        );
        let rest = ModelProfile {
            workspace_bytes: plain.workspace_bytes,
            head_bytes: plain.head_bytes,
            ..wide
        };
        assert_eq!(rest, plain);
    }
}
