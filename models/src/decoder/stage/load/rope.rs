//! The tables of rotary angles of a stage.

use concord_kernels::tables::{FrequencyScaling, RopePairs, RopeTable};

use crate::config::{DecoderConfig, Rope, RopeScaling};

/// The rotary tables, in the order of [`DecoderConfig::rope_of`].
pub(super) fn rope_tables(config: &DecoderConfig, positions: usize) -> Vec<RopeTable> {
    let ropes = [Some(&config.rope), config.local_rope.as_ref()];
    let table = |rope: &Rope| {
        let rotated = config.rotary_dim.unwrap_or(config.head_dim);
        let scaling = frequency_scaling(&rope.scaling, positions);
        RopeTable {
            head_dim: config.head_dim,
            pairs: match config.rope_neighbours {
                true => RopePairs::Neighbours,
                false => RopePairs::Halves,
            },
            ..RopeTable::new(rotated, rope.theta, scaling, positions)
        }
    };
    ropes.into_iter().flatten().map(table).collect()
}

/// `longest` is the declared longest length of the job or the deployment. Scalings that depend on
/// the current length of a sequence in transformers depend on it here, so that keys in a cache stay
/// valid while a sequence grows.
fn frequency_scaling(scaling: &RopeScaling, longest: usize) -> FrequencyScaling {
    match scaling {
        RopeScaling::None => FrequencyScaling::None,
        RopeScaling::Linear { factor } => FrequencyScaling::Linear { factor: *factor },
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => FrequencyScaling::Llama3 {
            factor: *factor,
            low_freq_factor: *low_freq_factor,
            high_freq_factor: *high_freq_factor,
            original_max_positions: *original_max_positions as f64,
        },
        RopeScaling::Dynamic {
            factor,
            original_max_positions,
        } => FrequencyScaling::Dynamic {
            factor: *factor,
            original_max_positions: *original_max_positions as f64,
            longest: longest as f64,
        },
        RopeScaling::Yarn {
            factor,
            original_max_positions,
            beta_fast,
            beta_slow,
            truncate,
            attention_factor,
        } => FrequencyScaling::Yarn {
            factor: *factor,
            original_max_positions: *original_max_positions as f64,
            beta_fast: *beta_fast,
            beta_slow: *beta_slow,
            truncate: *truncate,
            attention_factor: *attention_factor,
        },
        RopeScaling::LongRope {
            short,
            long,
            original_max_positions,
            attention_factor,
        } => FrequencyScaling::LongRope {
            factors: match longest > *original_max_positions {
                true => long.clone(),
                false => short.clone(),
            },
            attention_factor: *attention_factor,
        },
    }
}
