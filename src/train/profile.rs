//! What the planner needs to know of a model.

use concord_models::config::{DecoderConfig, Projection};
use concord_proto::client::ModelProfile;
use concord_proto::{JobSpec, Place};

/// The profile of `config` as `spec` trains it on sequences of `sequence_len` tokens.
pub fn model_profile(
    config: &DecoderConfig,
    spec: &JobSpec,
    sequence_len: u32,
    recompute: bool,
) -> ModelProfile {
    let weights: u64 = Projection::ALL
        .iter()
        .map(|p| elements(&p.shape(config)))
        .sum();
    let tokens = u64::from(spec.micro_batch_size) * u64::from(sequence_len);
    let hidden = config.hidden as u64;
    let head = (config.vocab * config.hidden) as u64;
    // Scores and mixing: on average a query sees half of the sequence.
    let attention = u64::from(sequence_len) * config.q_dim() as u64;
    let trained = |wanted: &dyn Fn(Place) -> bool| -> u64 {
        let wanted = spec.trainable.iter().filter(|tensor| wanted(tensor.place));
        wanted
            .map(|tensor| tensor.shape.iter().product::<u64>())
            .sum()
    };
    let in_layers = trained(&|place| matches!(place, Place::Layer(_)));
    // Value, two moments, their successors, and gradients of the microbatches, in f32.
    let state_bytes = 4 * (6 + u64::from(spec.microbatches));
    // Hidden states and their codes around every product of a layer, as they are kept.
    let wide = (config.intermediate * 5 + config.q_dim() * 4 + config.hidden * 6) as u64;
    let kept = if recompute { 4 * hidden } else { 4 * wide };
    ModelProfile {
        layer_macs: weights + attention,
        head_macs: head,
        layer_bytes: 2 * weights,
        embed_bytes: 4 * head,
        head_bytes: 2 * head,
        layer_state_bytes: state_bytes * in_layers / u64::from(spec.layers.max(1)),
        layer_activation_bytes: kept * tokens,
        boundary_bytes: 4 * hidden * tokens,
        microbatch_tokens: tokens,
        backward_percent: if trained(&|place| place != Place::Head) > in_layers {
            200
        } else {
            150
        },
    }
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&dim| dim as u64).product()
}
