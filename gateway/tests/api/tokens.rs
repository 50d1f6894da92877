//! `/tokenize` and `/detokenize`.

use serde_json::json;

use crate::stand::{BOS, CHAT_PROMPT, POSITIONS, Stand, chat_body, ids};

#[tokio::test]
async fn texts_and_chats_become_tokens() {
    let stand = Stand::saying("x").await;
    let body = stand
        .post("/tokenize", &json!({"prompt": "ab"}))
        .await
        .json();
    assert_eq!(body["tokens"], json!([BOS, 97, 98]));
    assert_eq!(body["count"], 3);
    assert_eq!(body["max_model_len"], POSITIONS);
    assert!(body["token_strs"].is_null());
    let fields = json!({"prompt": "ab", "add_special_tokens": false, "return_token_strs": true});
    let body = stand.post("/tokenize", &fields).await.json();
    assert_eq!(body["tokens"], json!([97, 98]));
    assert_eq!(body["token_strs"], json!(["a", "b"]));
    let body = stand.post("/tokenize", &chat_body(json!({}))).await.json();
    assert_eq!(body["tokens"], json!(ids(CHAT_PROMPT)));
    let fields = chat_body(json!({"add_generation_prompt": false}));
    let body = stand.post("/tokenize", &fields).await.json();
    assert_eq!(body["tokens"], json!(ids("user: hi\n")));
}

#[tokio::test]
async fn tokens_become_a_text() {
    let stand = Stand::saying("x").await;
    let tokens = json!({"tokens": [97, 0xC3, 0xA9]});
    let body = stand.post("/detokenize", &tokens).await.json();
    assert_eq!(body, json!({"prompt": "a\u{e9}"}));
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let stand = Stand::saying("x").await;
    let cases = [
        ("/tokenize", json!({}), "messages"),
        ("/tokenize", json!({"prompt": 1}), "prompt"),
        ("/tokenize", json!({"prompt": "a", "x": 1}), "x"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": "a"}), "tokens"),
        ("/detokenize", json!({"tokens": [1, 260]}), "tokens[1]"),
        ("/detokenize", json!({"tokens": [-1]}), "tokens[0]"),
    ];
    for (path, body, param) in cases {
        let reply = stand.post(path, &body).await;
        assert_eq!(reply.status, 400, "{body}");
        assert_eq!(reply.json()["error"]["param"], param, "{body}");
    }
}
