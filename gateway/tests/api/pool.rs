//! Information about the pool: probes, metrics, the data of the page.

use concord_proto::Keypair;
use concord_proto::Layers;
use concord_proto::serving::{LinkView, PipelineView, PoolView, StageView, WorkerView};
use serde_json::json;

use crate::stand::Stand;

fn view() -> PoolView {
    let worker = Keypair::from_secret([7; 32]).public();
    let stage = |start: u32| StageView {
        worker,
        device: "cpu".to_string(),
        layers: Layers::new(start, start + 1),
        passes: 10,
        rows: 20,
        queue_seconds: 0.5,
        compute_seconds: 1.5,
        wait_seconds: 2.5,
        link: LinkView {
            bytes: 1_000,
            wire_seconds: 0.25,
        },
    };
    PoolView {
        ready: true,
        state: "serving".to_string(),
        workers: vec![WorkerView {
            id: worker,
            device: "cpu".to_string(),
            doing: "layers 0 to 2".to_string(),
            memory_bytes: 1 << 30,
            macs_per_second: 1_000,
        }],
        pipelines: vec![PipelineView {
            epoch: 3,
            running: true,
            active: 4,
            waiting: 5,
            pages_used: 25,
            pages: 100,
            prefix_queries: 70,
            prefix_hits: 30,
            preemptions: 2,
            stages: vec![stage(0), stage(1)],
            ..PipelineView::default()
        }],
        failovers: 6,
        last_resume_seconds: Some(0.75),
        audits: (8, 1),
        receipts_lost: 17,
    }
}

#[tokio::test]
async fn health_and_ready_are_of_the_pool() {
    let stand = Stand::saying("x").await;
    stand.engine.view.lock().expect("no panic").state = "it waits for 2 workers".to_string();
    for path in ["/health", "/ready"] {
        let reply = stand.get(path).await;
        let message = reply.refused(503, None, Some("not_ready"));
        assert!(message.contains("it waits for 2 workers"), "{message}");
        assert_eq!(reply.header("retry-after"), "5");
    }
    *stand.engine.view.lock().expect("no panic") = view();
    for path in ["/health", "/ready"] {
        assert_eq!(stand.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn figures_have_the_names_that_boards_know() {
    let stand = Stand::saying("abc").await;
    *stand.engine.view.lock().expect("no panic") = view();
    stand.chat(json!({})).await;
    stand.chat(json!({"max_tokens": 2, "n": 2})).await;
    let reply = stand.get("/metrics").await;
    assert!(
        reply
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let model = "model_name=\"tiny/model\"";
    let expected = [
        format!("vllm:num_requests_running{{{model}}} 4.0"),
        format!("vllm:num_requests_waiting{{{model}}} 5.0"),
        format!("vllm:kv_cache_usage_perc{{{model}}} 0.25"),
        format!("vllm:prefix_cache_queries_total{{{model}}} 70"),
        format!("vllm:prefix_cache_hits_total{{{model}}} 30"),
        format!("vllm:num_preemptions_total{{{model}}} 2"),
        format!("vllm:prompt_tokens_total{{{model}}} 60"),
        format!("vllm:generation_tokens_total{{{model}}} 8"),
        format!("vllm:request_success_total{{{model},finished_reason=\"stop\"}} 1"),
        format!("vllm:request_success_total{{{model},finished_reason=\"length\"}} 2"),
        format!("vllm:time_to_first_token_seconds_count{{{model}}} 3"),
        format!("vllm:inter_token_latency_seconds_count{{{model}}} 5"),
        format!("vllm:e2e_request_latency_seconds_count{{{model}}} 3"),
        format!("concord:failovers_total{{{model}}} 6"),
        format!("concord:receipts_total{{{model}}} 3"),
        format!("concord:receipts_lost_total{{{model}}} 17"),
        format!("concord:requests_total{{{model},key=\"anyone\",status=\"2xx\"}} 2"),
        format!("concord:key_prompt_tokens_total{{{model},key=\"anyone\"}} 40"),
        format!("concord:key_generation_tokens_total{{{model},key=\"anyone\"}} 8"),
        "concord:stage_queue_seconds_total{".to_string(),
        "concord:stage_compute_seconds_total{".to_string(),
        "concord:stage_wait_seconds_total{".to_string(),
        "concord:link_wire_seconds_total{".to_string(),
        "concord:link_bytes_total{".to_string(),
    ];
    for line in expected {
        assert!(reply.text.contains(&line), "{line} in\n{}", reply.text);
    }
    let bytes: Vec<&str> = reply
        .text
        .lines()
        .filter(|line| line.starts_with("concord:link_bytes_total{"))
        .collect();
    assert_eq!(bytes.len(), 2);
    assert!(
        bytes[1].contains("pipeline=\"0\"") && bytes[1].contains("stage=\"1\""),
        "{bytes:?}"
    );
    assert!(bytes[1].ends_with(" 1000"), "{bytes:?}");
    assert!(reply.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_page_and_its_data() {
    let stand = Stand::saying("x").await;
    *stand.engine.view.lock().expect("no panic") = view();
    let body = stand.get("/api/pool").await.json();
    assert_eq!(body["model"], "tiny/model");
    assert_eq!(body["pipelines"][0]["stages"][1]["layers"], json!([1, 2]));
    assert_eq!(body["receipts_lost"], 17);
    assert_eq!(body["audits"], json!({"agreed": 8, "disagreed": 1}));
    let page = stand.get("/").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    // The policy forbids inline scripts and styles, so the page has none.
    assert!(!page.text.contains("<script>") && !page.text.contains("style="));
    for script in ["/page.js", "/markdown.js"] {
        let reply = stand.get(script).await;
        let kind = reply.header("content-type");
        assert_eq!(kind, "text/javascript; charset=utf-8");
        // Text of answers never becomes markup.
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!reply.text.contains(way), "{script}: {way}");
        }
    }
    assert_eq!(
        stand.get("/page.css").await.header("content-type"),
        "text/css; charset=utf-8"
    );
}
