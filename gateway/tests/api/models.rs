//! `/v1/models`, the names of models, and unknown paths.

use serde_json::json;

use crate::stand::{POSITIONS, Stand};

#[tokio::test]
async fn models_are_listed() {
    let stand = Stand::saying("x").await;
    let body = stand.get("/v1/models").await.json();
    assert_eq!(body["object"], "list");
    let data = body["data"].as_array().expect("a list");
    assert_eq!(data.len(), 2);
    assert_eq!(data[0]["id"], "tiny/model");
    assert_eq!(data[0]["object"], "model");
    // Seconds, not milliseconds.
    assert_eq!(data[0]["created"], 1_700_000_000);
    assert_eq!(data[0]["max_model_len"], POSITIONS);
    assert_eq!(data[1]["id"], "tuned");
    assert_eq!(data[1]["parent"], "tiny/model");
    let one = stand.get("/v1/models/tiny/model").await.json();
    assert_eq!(one, data[0]);
    assert_eq!(stand.get("/v1/models/tiny%2Fmodel").await.json(), data[0]);
    assert_eq!(stand.get("/v1/models/tuned").await.json(), data[1]);
    let reply = stand.get("/v1/models/gpt-4").await;
    reply.refused(404, Some("model"), Some("model_not_found"));
}

#[tokio::test]
async fn an_unknown_model_is_not_found_and_none_is_the_default() {
    let stand = Stand::saying("x").await;
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"] {
        let body = json!({"model": "gpt-4", "prompt": "x", "input": "x"});
        let reply = stand.post(path, &body).await;
        let message = reply.refused(404, Some("model"), Some("model_not_found"));
        assert!(message.contains("tiny/model, tuned"), "{message}");
    }
    for model in [json!(null), json!(""), json!("tiny/model")] {
        let body = stand.chat(json!({"model": model})).await.json();
        assert_eq!(body["model"], "tiny/model");
    }
}

#[tokio::test]
async fn paths_and_methods_that_are_none() {
    let stand = Stand::saying("x").await;
    stand.get("/v1/images").await.refused(404, None, None);
    stand
        .get("/v1/chat/completions")
        .await
        .refused(405, None, None);
    stand
        .post("/v1/models", &json!({}))
        .await
        .refused(405, None, None);
    assert!(
        stand
            .get("/v1/models")
            .await
            .header("x-request-id")
            .starts_with("req-")
    );
}

#[tokio::test]
async fn embeddings_are_refused_with_the_reason() {
    let stand = Stand::saying("x").await;
    for input in [json!("x"), json!(["x", "y"])] {
        let reply = stand.post("/v1/embeddings", &json!({"input": input})).await;
        let message = reply.refused(400, Some("model"), Some("unsupported_model"));
        assert!(message.contains("not trained for embeddings"), "{message}");
    }
    // What LangChain sends by default: ids of OpenAI's tokenizer.
    for input in [json!([1, 99_999]), json!([[1, 2], [3]])] {
        let body = json!({"input": input, "encoding_format": "base64"});
        let reply = stand.post("/v1/embeddings", &body).await;
        let message = reply.refused(400, Some("input"), Some("unsupported_model"));
        assert!(
            message.contains("check_embedding_ctx_length=False"),
            "{message}"
        );
    }
    for input in [json!(1), json!({"a": 1}), json!(["x", 1])] {
        let reply = stand.post("/v1/embeddings", &json!({"input": input})).await;
        reply.refused(400, Some("input"), Some("invalid_type"));
    }
    let reply = stand.post("/v1/embeddings", &json!({})).await;
    reply.refused(400, Some("input"), Some("missing_required_parameter"));
}
