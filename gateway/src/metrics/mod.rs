//! Metrics for Prometheus, with vLLM's names where vLLM has them.

mod keys;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use concord_proto::serving::Usage;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::InferenceEngine;
use keys::KeyFigures;
use pool::PoolFigures;

/// The content type of the metrics.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of buckets, in seconds, from a token of a small model to a long answer of a slow pool.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
    600.0,
];

/// The metrics of the gateway.
pub(crate) struct Metrics {
    registry: Registry,
    first_token: Histogram,
    next_token: Histogram,
    whole: Histogram,
    prompt_tokens: Counter,
    answer_tokens: Counter,
    ended: Family<[(&'static str, &'static str); 1], Counter>,
    receipts: Counter,
    keys: KeyFigures,
    lines_lost: Counter,
}

impl Metrics {
    /// Metrics of the model `name` and of the pool behind `engine`.
    pub fn new(name: &str, engine: Arc<dyn InferenceEngine>) -> Self {
        let histogram = || Histogram::new(SECONDS);
        let mut all = Registry::default();
        let label = ("model_name".into(), name.to_string().into());
        let registry = all.sub_registry_with_label(label);
        let (first_token, next_token, whole) = (histogram(), histogram(), histogram());
        let (prompt_tokens, answer_tokens) = (Counter::default(), Counter::default());
        let ended = Family::default();
        let receipts = Counter::default();
        registry.register(
            "vllm:time_to_first_token_seconds",
            "From request to first token",
            first_token.clone(),
        );
        registry.register(
            "vllm:inter_token_latency_seconds",
            "Between two tokens of an answer",
            next_token.clone(),
        );
        registry.register(
            "vllm:e2e_request_latency_seconds",
            "From request to last token",
            whole.clone(),
        );
        registry.register("vllm:prompt_tokens", "Prompt tokens", prompt_tokens.clone());
        registry.register(
            "vllm:generation_tokens",
            "Tokens of answers",
            answer_tokens.clone(),
        );
        registry.register(
            "vllm:request_success",
            "Answers that ended, by reason",
            ended.clone(),
        );
        registry.register(
            "concord:receipts",
            "Answers whose text was closed for a receipt",
            receipts.clone(),
        );
        registry.register_collector(Box::new(PoolFigures(engine)));
        let keys = KeyFigures::new(registry);
        let lines_lost = Counter::default();
        registry.register(
            "concord:access_lines_lost",
            "Lines of the log of accesses that the disk did not follow",
            lines_lost.clone(),
        );
        Self {
            registry: all,
            first_token,
            next_token,
            whole,
            prompt_tokens,
            answer_tokens,
            ended,
            receipts,
            keys,
            lines_lost,
        }
    }

    /// Counts a token that came `after` the request, or after the previous token.
    pub fn token(&self, is_first: bool, after: Duration) {
        let histogram = match is_first {
            true => &self.first_token,
            false => &self.next_token,
        };
        histogram.observe(after.as_secs_f64());
        self.answer_tokens.inc();
    }

    /// Counts an answer that ended for `reason`, `after` its request.
    pub fn ended(&self, reason: &'static str, after: Duration, prompt_tokens: u32) {
        self.whole.observe(after.as_secs_f64());
        self.prompt_tokens.inc_by(u64::from(prompt_tokens));
        self.ended
            .get_or_create(&[("finished_reason", reason)])
            .inc();
    }

    /// Counts an answer whose text was closed for its receipt.
    pub fn closed(&self) {
        self.receipts.inc();
    }

    /// Counts a request that is over.
    pub fn visited(&self, key: Option<&str>, status: u16, usage: &Usage) {
        self.keys.visited(key, status, usage);
    }

    /// Counts lines of the access log that were not written.
    pub fn lines_lost(&self, count: u64) {
        self.lines_lost.inc_by(count);
    }

    /// All metrics as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

/// Metrics without those of keys other than `own`.
pub(crate) fn without_other_keys(text: &str, own: Option<&str>) -> String {
    let own = own.map(|name| format!("{{key=\"{name}\""));
    let is_shown = |line: &&str| {
        !line.contains("{key=\"") || own.as_deref().is_some_and(|own| line.contains(own))
    };
    text.lines()
        .filter(is_shown)
        .flat_map(|line| [line, "\n"])
        .collect()
}
