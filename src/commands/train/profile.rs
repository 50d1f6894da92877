//! What the planner needs to know of a model.

use concord_models::config::DecoderConfig;
use concord_models::decoder::WeightBytes;
use concord_proto::client::ModelProfile;
use concord_proto::{AdapterSpec, JobSpec, ModelPlace};

/// The profile of `config` as `spec` trains it on sequences of `sequence_len` tokens.
///
/// A stage takes, in bytes: its weights ([`WeightBytes`]: 2 an element of what is multiplied, 4 an
/// element of the embedding); for each trained element 4 times nine and the microbatches: value and
/// two moments, those of the step before, which an audit may ask for, those of the step after, and
/// the gradients; and activations of the microbatches in flight. Loading takes no more than that:
/// it goes slice by slice. A tied embedding that is trained is counted at both ends, also where one
/// stage has both and holds it once.
pub fn model_profile(
    config: &DecoderConfig,
    spec: &JobSpec,
    sequence_len: u32,
    recompute: bool,
) -> ModelProfile {
    // Where layers differ, the planner counts with the largest.
    let layers = (0..config.layers).map(|layer| config.layer_macs(layer));
    let weights = layers.max().unwrap_or(0);
    let held = WeightBytes::of(config);
    let tokens = u64::from(spec.micro_batch_size) * u64::from(sequence_len);
    let hidden = config.hidden as u64;
    let head = (config.vocab * config.hidden) as u64;
    // Scores and mixing: on average a query sees half of the sequence.
    let attention = u64::from(sequence_len) * config.q_dim() as u64;
    let trained = |wanted: &dyn Fn(ModelPlace) -> bool| -> u64 {
        let wanted = spec.trainable.iter().filter(|tensor| wanted(tensor.place));
        wanted
            .map(|tensor| tensor.shape.iter().product::<u64>())
            .sum()
    };
    let in_layers = trained(&|place| matches!(place, ModelPlace::Layer(_)));
    let at_start = trained(&|place| matches!(place, ModelPlace::Embed | ModelPlace::EmbedAndHead));
    let at_end = trained(&|place| matches!(place, ModelPlace::Head | ModelPlace::EmbedAndHead));
    let state_bytes = 4 * (9 + u64::from(spec.microbatches));
    // Low-rank factors are codes beside the weights; a trained weight is counted there.
    let factor_bytes = if spec.adapter == AdapterSpec::Full {
        0
    } else {
        2
    };
    // Hidden states and their codes around every product of a layer, as they are kept.
    let wide = (config.feed_width() * 5 + config.q_dim() * 4 + config.hidden * 6) as u64;
    let kept = if recompute { 4 * hidden } else { 4 * wide };
    ModelProfile {
        layer_macs: weights + attention,
        head_macs: head,
        layer_bytes: held.layer,
        embed_bytes: held.embed + state_bytes * at_start,
        head_bytes: held.head + state_bytes * at_end,
        layer_state_bytes: (state_bytes + factor_bytes) * in_layers / u64::from(spec.layers.max(1)),
        layer_activation_bytes: kept * tokens,
        boundary_bytes: 4 * hidden * tokens,
        microbatch_tokens: tokens,
        backward_percent: if trained(&|place| place != ModelPlace::Head) > in_layers {
            200
        } else {
            150
        },
    }
}
