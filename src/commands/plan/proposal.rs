//! A fine-tune as a coordinator would plan it, and the memory of each of its stages.

use concord_coordinator::planner::{self, PlanError, PlanRequest, PlannerDevice, TrainingPlan};
use concord_models::memory::{StageBytes, TrainingBytes, TrainingRun};
use concord_proto::client::PlanChoice;
use concord_proto::{Digest, JobId, Layers};
use concord_runtime::spec::span;

use super::model::PlannedModel;
use crate::support::profile;

/// The plan that a coordinator would make.
pub fn planned(
    model: &PlannedModel,
    run: &TrainingRun,
    choice: &PlanChoice,
    devices: &[PlannerDevice],
) -> Result<TrainingPlan, PlanError> {
    planner::plan(&PlanRequest {
        job: JobId(Digest::default()),
        epoch: 1,
        layers: model.config.layers as u32,
        microbatches: run.microbatches,
        evaluation_microbatches: 0,
        profile: &profile::training(&model.config, run, &model.kept),
        choice,
        devices,
    })
}

/// The memory of each stage of a plan.
pub fn stages(
    model: &PlannedModel,
    run: &TrainingRun,
    planned: &TrainingPlan,
) -> Vec<(Layers, StageBytes)> {
    let bytes = TrainingBytes::of(&model.config, run, &|name| model.kept.get(name));
    let in_flight = planned.depth.min(run.microbatches);
    let stages = planned.plan.stages.iter().zip(&planned.stage_bytes);
    let stages = stages.map(|(&stage, &counted)| {
        let bytes = bytes.stage(span(stage), in_flight);
        // A part of a layer is planned as the largest one.
        debug_assert!(bytes.total() <= counted);
        (stage, bytes)
    });
    stages.collect()
}

#[cfg(test)]
mod tests {
    use concord_models::config::DecoderConfig;
    use concord_models::decoder::Trainable;
    use concord_models::train::MomentForm;

    use super::super::fit;
    use super::*;

    fn model(is_tied: bool) -> PlannedModel {
        let config = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "hidden_size": 64,
                "intermediate_size": 160, "num_hidden_layers": 7, "num_attention_heads": 4,
                "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 256,
                "rms_norm_eps": 1e-5, "tie_word_embeddings": {is_tied}}}"#
        );
        PlannedModel::of("a model", DecoderConfig::from_json(&config).unwrap())
    }

    /// For every cut, the shown numbers are those of the coordinator's planner.
    #[test]
    fn the_parts_of_a_stage_are_what_the_planner_counts() {
        let lora = TrainingRun::lora(4, 96);
        for is_tied in [false, true] {
            for recompute in [false, true] {
                for trainable in [Trainable::Full, lora.trainable.clone()] {
                    for microbatches in [1, 5] {
                        let run = TrainingRun {
                            trainable: trainable.clone(),
                            microbatches,
                            micro_batch_size: 3,
                            recompute,
                            ..lora.clone()
                        };
                        agrees(&model(is_tied), &run);
                    }
                }
            }
        }
    }

    fn agrees(model: &PlannedModel, run: &TrainingRun) {
        for stages in 1..=7 {
            let choice = PlanChoice::Fixed {
                stages,
                replicas: 1,
                shares: Vec::new(),
            };
            let planned = planned(model, run, &choice, &fit::ample(stages)).unwrap();
            let shown = super::stages(model, run, &planned);
            let totals: Vec<u64> = shown.iter().map(|(_, bytes)| bytes.total()).collect();
            assert_eq!(totals, planned.stage_bytes, "{run:?}");
        }
    }

    #[test]
    fn each_key_that_makes_it_smaller_does() {
        // One plan for all: a smaller job may be cut otherwise, with more copies of the model.
        let total = |run: &TrainingRun| {
            let choice = PlanChoice::Fixed {
                stages: 2,
                replicas: 1,
                shares: Vec::new(),
            };
            let planned = planned(&model(false), run, &choice, &fit::ample(2)).unwrap();
            planned.stage_bytes.iter().sum::<u64>()
        };
        let full = TrainingRun {
            trainable: Trainable::Full,
            microbatches: 4,
            micro_batch_size: 2,
            ..TrainingRun::lora(4, 128)
        };
        let lora = TrainingRun {
            trainable: TrainingRun::lora(4, 128).trainable,
            ..full.clone()
        };
        let shorter = TrainingRun {
            sequence_len: 64,
            ..full.clone()
        };
        let one = TrainingRun {
            micro_batch_size: 1,
            ..full.clone()
        };
        let packed = TrainingRun {
            moments: MomentForm::Bits8,
            ..full.clone()
        };
        for smaller in [lora, shorter, one, packed] {
            assert!(total(&smaller) < total(&full), "{smaller:?}");
        }
    }
}
