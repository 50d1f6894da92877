//! The state of the pool as JSON, for the page.

use concord_proto::serving::{PipelineView, PoolView, StageView, WorkerView};
use concord_proto::{Edge, Layers};
use serde_json::{Value, json};

/// The body of `/api/pool`. Workers are identified by their keys.
pub(crate) fn to_json(view: &PoolView, model: &str) -> Value {
    json!({
        "model": model,
        "ready": view.ready,
        "state": view.state,
        "failovers": view.failovers,
        "last_resume_seconds": view.last_resume_seconds,
        "receipts_lost": view.receipts_lost,
        "audits": {"agreed": view.audits.0, "disagreed": view.audits.1},
        "workers": view.workers.iter().map(worker).collect::<Vec<_>>(),
        "pipelines": view.pipelines.iter().map(pipeline).collect::<Vec<_>>(),
    })
}

fn worker(worker: &WorkerView) -> Value {
    json!({
        "id": worker.id.to_string(),
        "device": worker.device,
        "doing": worker.doing,
        "memory_bytes": worker.memory_bytes,
        "macs_per_second": worker.macs_per_second,
    })
}

fn pipeline(pipeline: &PipelineView) -> Value {
    json!({
        "epoch": pipeline.epoch,
        "running": pipeline.running,
        "active": pipeline.active,
        "waiting": pipeline.waiting,
        "pages_used": pipeline.pages_used,
        "pages_cached": pipeline.pages_cached,
        "pages": pipeline.pages,
        "prefix_queries": pipeline.prefix_queries,
        "prefix_hits": pipeline.prefix_hits,
        "preemptions": pipeline.preemptions,
        "tokens": pipeline.tokens,
        "tokens_per_second": pipeline.tokens_per_second,
        "stages": pipeline.stages.iter().map(stage).collect::<Vec<_>>(),
    })
}

/// Both ends: the number of the layer that a cut is before; within a layer `"LAYER+EXPERT"`.
pub(crate) fn ends(layers: Layers) -> Value {
    let edge = |edge: Edge| match edge.expert {
        0 => json!(edge.layer),
        _ => json!(edge.to_string()),
    };
    json!([edge(layers.start), edge(layers.end)])
}

fn stage(stage: &StageView) -> Value {
    json!({
        "worker": stage.worker.to_string(),
        "device": stage.device,
        "layers": ends(stage.layers),
        "passes": stage.passes,
        "rows": stage.rows,
        "queue_seconds": stage.queue_seconds,
        "compute_seconds": stage.compute_seconds,
        "wait_seconds": stage.wait_seconds,
        "link": {"bytes": stage.link.bytes, "wire_seconds": stage.link.wire_seconds},
    })
}
