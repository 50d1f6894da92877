//! Metrics of the pool, read from the engine when they are asked for.

use std::fmt;
use std::sync::Arc;

use concord_proto::serving::{PipelineView, PoolView, StageView};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::engine::InferenceEngine;

/// Seconds of a stage.
type Figure = fn(&StageView) -> f64;

/// The pool behind an engine.
pub(super) struct PoolFigures(pub Arc<dyn InferenceEngine>);

impl fmt::Debug for PoolFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolFigures")
    }
}

impl Collector for PoolFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.0.view();
        gauges(&view, &mut encoder)?;
        counters(&view, &mut encoder)?;
        let figures: [(&str, &str, Figure); 4] = [
            ("stage_queue_seconds", "Passes waited", |stage| {
                stage.queue_seconds
            }),
            ("stage_compute_seconds", "Computing", |stage| {
                stage.compute_seconds
            }),
            ("stage_wait_seconds", "Without work", |stage| {
                stage.wait_seconds
            }),
            (
                "link_wire_seconds",
                "On the way to the next stage",
                |stage| stage.link.wire_seconds,
            ),
        ];
        for (name, help, figure) in figures {
            let value = |stage: &StageView| ConstCounter::new(figure(stage));
            by_stage(&view, &mut encoder, name, help, value)?;
        }
        by_stage(
            &view,
            &mut encoder,
            "link_bytes",
            "Bytes sent to the next stage",
            |stage| ConstCounter::new(stage.link.bytes),
        )
    }
}

fn gauges(view: &PoolView, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let sum = |figure: fn(&PipelineView) -> u32| -> u64 {
        view.pipelines
            .iter()
            .map(|pipeline| u64::from(figure(pipeline)))
            .sum()
    };
    let (used, pages) = (
        sum(|pipeline| pipeline.pages_used),
        sum(|pipeline| pipeline.pages),
    );
    let share = match pages {
        0 => 0.0,
        pages => used as f64 / pages as f64,
    };
    let all: [(&str, &str, f64); 5] = [
        (
            "vllm:num_requests_running",
            "Generations that hold pages",
            sum(|pipeline| pipeline.active) as f64,
        ),
        (
            "vllm:num_requests_waiting",
            "Generations that wait",
            sum(|pipeline| pipeline.waiting) as f64,
        ),
        (
            "vllm:kv_cache_usage_perc",
            "Share of pages in use, from 0 to 1",
            share,
        ),
        (
            "concord:workers",
            "Members of the pool",
            view.workers.len() as f64,
        ),
        (
            "concord:ready",
            "1 where requests are taken",
            f64::from(u8::from(view.ready)),
        ),
    ];
    for (name, help, value) in all {
        let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(descriptor)?;
    }
    Ok(())
}

fn counters(view: &PoolView, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let sum = |figure: fn(&PipelineView) -> u64| -> u64 { view.pipelines.iter().map(figure).sum() };
    let all = [
        (
            "concord:receipts_lost",
            "Receipts that could not be written",
            view.receipts_lost,
        ),
        (
            "vllm:prefix_cache_queries",
            "Prompt tokens asked for",
            sum(|pipeline| pipeline.prefix_queries),
        ),
        (
            "vllm:prefix_cache_hits",
            "Prompt tokens out of the prefix cache",
            sum(|pipeline| pipeline.prefix_hits),
        ),
        (
            "vllm:num_preemptions",
            "Generations that lost their pages to others",
            sum(|pipeline| pipeline.preemptions),
        ),
        (
            "concord:failovers",
            "Stages lost, and put right",
            view.failovers,
        ),
        (
            "concord:audits_agreed",
            "Answers computed again, and found right",
            view.audits.0,
        ),
        (
            "concord:audits_disagreed",
            "Answers computed again, and found wrong",
            view.audits.1,
        ),
    ];
    for (name, help, value) in all {
        let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(descriptor)?;
    }
    Ok(())
}

fn by_stage<M: EncodeMetric>(
    view: &PoolView,
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: impl Fn(&StageView) -> M,
) -> fmt::Result {
    let name = format!("concord:{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for (index, pipeline) in view.pipelines.iter().enumerate() {
        for (place, stage) in pipeline.stages.iter().enumerate() {
            let labels = [
                ("pipeline", index.to_string()),
                ("stage", place.to_string()),
                ("worker", stage.worker.short()),
            ];
            metric(stage).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
