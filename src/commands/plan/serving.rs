//! The memory of serving.

use anyhow::Context;
use concord_coordinator::planner::PlanError;
use concord_coordinator::planner::serving::{
    ServingPlan, plan_serving, stage_bytes, workspace_bytes,
};
use concord_models::decoder::WeightBytes;
use concord_models::memory::StageBytes;
use concord_proto::Layers;
use concord_proto::serving::{PAGE_TOKENS, ServingProfile};
use concord_runtime::spec::span;
use serde_json::{Value, json};

use super::PlanPart;
use super::fit::{self, PLACED, Placed};
use super::model::PlannedModel;
use crate::support::bytes::size;
use crate::support::kv_cache::KvCacheArgs;
use crate::support::layers::ends;
use crate::support::profile;
use crate::support::table::table;

/// Pages of 1,024 tokens.
const PAGES_1K: u32 = 1_024 / PAGE_TOKENS;

const HEADINGS: [&str; 7] = [
    "stages",
    "layers",
    "weights",
    "KV of 1k tokens",
    "KV of all positions",
    "workspace",
    "total",
];

/// The stages of a pipeline, and what fits where.
///
/// # Errors
/// Where the workers have too little memory; says what would help.
pub fn parts(
    model: &PlannedModel,
    workers: &[u64],
    kv_cache: KvCacheArgs,
) -> anyhow::Result<Vec<PlanPart>> {
    let profile = profile::serving(&model.config, &model.kept, kv_cache.precision());
    let layers = model.config.layers as u32;
    let positions = u32::try_from(model.config.max_positions).unwrap_or(u32::MAX);
    let pages = positions.div_ceil(PAGE_TOKENS);
    let (mut rows, mut objects) = (Vec::new(), Vec::new());
    for count in fit::stage_counts(&model.config) {
        let plan = fit::tightest(count, |devices| {
            let plan = plan_serving(devices, &profile, layers, count, 1, pages)?;
            let has_room = plan.pipelines[0].pages >= pages;
            // The planner gives fewer pages where not all fit.
            has_room.then_some(plan).ok_or(PlanError::Memory {
                workers: count,
                more_bytes: 1,
                more_workers: None,
            })
        })?;
        for &stage in &plan.pipelines[0].stages {
            let bytes = bytes(model, &profile, stage, pages);
            debug_assert_eq!(bytes.total(), stage_bytes(&profile, stage, layers, pages));
            let of_1k = u64::from(PAGES_1K) * page_bytes(&profile, stage);
            rows.push([
                count.to_string(),
                stage.to_string(),
                size(bytes.weights),
                size(of_1k),
                size(bytes.key_values),
                size(bytes.workspace),
                size(bytes.total()),
            ]);
            objects.push(object(count, stage, &bytes, of_1k));
        }
    }
    let text = format!("\nserving, one answer of {positions} positions at a time");
    let text = format!("{text}\n{}", table(HEADINGS, &rows));
    let object = json!({ "event": "serving", "positions": positions, "stages": objects });
    let mut parts = vec![(text, object)];
    if workers.is_empty() {
        return Ok(parts);
    }
    let devices = fit::devices(workers);
    let plan = plan_serving(&devices, &profile, layers, 0, 1, 0);
    let plan = plan.context("the model cannot be served")?;
    parts.push(fit_part(&plan, workers, &profile, layers));
    Ok(parts)
}

/// Bytes of a page in all layers of a stage.
fn page_bytes(profile: &ServingProfile, stage: Layers) -> u64 {
    (stage.attended().len() as u64).saturating_mul(profile.page_layer_bytes)
}

fn bytes(model: &PlannedModel, profile: &ServingProfile, stage: Layers, pages: u32) -> StageBytes {
    let kept = |name: &str| model.kept.get(name);
    let weights = WeightBytes::kept(&model.config, &kept);
    StageBytes {
        weights: weights.stage(&model.config, span(stage), 0),
        key_values: u64::from(pages).saturating_mul(page_bytes(profile, stage)),
        workspace: workspace_bytes(profile),
        ..StageBytes::default()
    }
}

fn object(count: u32, stage: Layers, bytes: &StageBytes, of_1k: u64) -> Value {
    json!({
        "stages": count, "layers": ends(stage), "weights_bytes": bytes.weights,
        "kv_bytes_per_1k_tokens": of_1k, "kv_bytes": bytes.key_values,
        "workspace_bytes": bytes.workspace, "total_bytes": bytes.total(),
    })
}

fn fit_part(
    plan: &ServingPlan,
    workers: &[u64],
    profile: &ServingProfile,
    layers: u32,
) -> PlanPart {
    let pipeline = &plan.pipelines[0];
    let stages = pipeline.stages.iter().zip(&pipeline.devices);
    let placed = stages.map(|(&stage, &worker)| Placed {
        worker,
        layers: stage,
        needs: stage_bytes(profile, stage, layers, pipeline.pages),
        has: workers[worker],
    });
    let placed: Vec<Placed> = placed.collect();
    let rows: Vec<_> = placed.iter().map(Placed::cells).collect();
    let tokens = u64::from(pipeline.pages) * u64::from(PAGE_TOKENS);
    let text = format!(
        "\nserved by {} of these workers, with keys and values of {tokens} tokens\n{}",
        placed.len(),
        table(PLACED, &rows)
    );
    let objects: Vec<Value> = placed.iter().map(Placed::object).collect();
    let object = json!({ "event": "serving_fit", "tokens": tokens, "workers": objects });
    (text, object)
}
