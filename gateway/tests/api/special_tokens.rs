//! Special tokens: visible to parsers that look for them, but not part of the text that users read
//! or write.

use std::sync::Arc;

use concord_gateway::{RunningGateway, start};
use serde_json::{Value, json};

use crate::client;
use crate::script::{Script, Scripted};
use crate::stand::{BOS, EOS, Stand, VOCAB, ids, options, served, tokenizer_with};

const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}</s>{% endfor %}\
                        {% if tools %}<tool_call>{% endif %}{# <think> #}";

/// A gateway whose engine says these tokens, with two more special tokens: 258 and 259.
async fn saying(tokens: Vec<u32>, more: [&str; 2]) -> (RunningGateway, Arc<Scripted>) {
    let mut served = served(Some(TEMPLATE));
    let special = [("<s>", BOS), ("</s>", EOS), (more[0], 258), (more[1], 259)];
    served.tokenizer = Arc::new(tokenizer_with(&special));
    let script = Script {
        tokens,
        ..Script::text("")
    };
    let engine = Arc::new(Scripted::new(script));
    let gateway = start(served, engine.clone(), options()).await;
    (gateway.expect("a gateway"), engine)
}

fn all(parts: &[&[u32]]) -> Vec<u32> {
    parts.concat()
}

fn chat(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let fields = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

const NONE: [&str; 2] = ["<|a|>", "<|b|>"];

#[tokio::test]
async fn a_stop_text_may_be_one_or_have_one() {
    let answer = all(&[
        &ids("Hello"),
        &[BOS],
        &ids("\nUser: x"),
        &[258],
        &ids("y"),
        &[EOS],
    ]);
    let cases = [
        (json!(null), "Hello\nUser: xy"),
        (json!("<s>"), "Hello"),
        (json!("<s>\nUser:"), "Hello"),
        (json!("lo<s>"), "Hel"),
        (json!(["<|a|>y", "z"]), "Hello\nUser: x"),
        (json!("xy"), "Hello\nUser: "),
        (json!("<s>\nUser: z"), "Hello\nUser: xy"),
    ];
    for (stop, text) in cases {
        for path in ["/v1/completions", "/v1/chat/completions"] {
            let (gateway, engine) = saying(answer.clone(), NONE).await;
            let mut body = chat(json!({"stop": stop, "max_tokens": 100}));
            if path == "/v1/completions" {
                body = json!({"prompt": "a", "stop": stop, "max_tokens": 100});
            }
            let reply = client::post(gateway.addr, path, None, &body).await.json();
            let choice = &reply["choices"][0];
            let found = choice["message"].get("content").unwrap_or(&choice["text"]);
            assert_eq!(found, text, "{stop} {reply}");
            assert_eq!(choice["finish_reason"], "stop", "{stop}");
            let tokens = engine.only().spec.stop_tokens;
            let expected = if stop == "<s>" {
                vec![BOS, EOS]
            } else {
                vec![EOS]
            };
            assert_eq!(tokens, expected, "{stop}");
        }
    }
}

#[tokio::test]
async fn markers_of_thoughts_may_be_special() {
    let answer = all(&[&[258], &ids("\nwhy\n"), &[259], &ids("\n\nIt is."), &[EOS]]);
    let (gateway, _) = saying(answer, ["<think>", "</think>"]).await;
    let body = chat(json!({}));
    let reply = client::post(gateway.addr, "/v1/chat/completions", None, &body)
        .await
        .json();
    let message = &reply["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "why", "{reply}");
    assert_eq!(message["content"], "It is.", "{reply}");
}

#[tokio::test]
async fn markers_of_calls_may_be_special() {
    let call = "{\"name\": \"f\", \"arguments\": {\"x\": 1}}";
    let answer = all(&[&ids("Hm "), &[258], &ids(call), &[259, EOS]]);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let marks = ["<tool_call>", "</tool_call>"];
    let (gateway, _) = saying(answer.clone(), marks).await;
    let body = chat(json!({"tools": tools}));
    let path = "/v1/chat/completions";
    let reply = client::post(gateway.addr, path, None, &body).await.json();
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{reply}");
    assert_eq!(choice["message"]["content"], "Hm", "{reply}");
    let call = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(call, &json!({"name": "f", "arguments": "{\"x\": 1}"}));
    // Cut off, it is never a call without arguments, nor told as a whole one.
    for length in 0..answer.len() {
        for end in [vec![EOS], vec![]] {
            let tokens = all(&[&answer[..length], &end]);
            let (gateway, _) = saying(tokens, marks).await;
            let reply = client::post(gateway.addr, path, None, &body).await.json();
            let choice = &reply["choices"][0];
            let calls = choice["message"]["tool_calls"].as_array();
            let arguments = calls.map(|calls| &calls[0]["function"]["arguments"]);
            let reason = choice["finish_reason"].as_str().expect("a reason");
            match arguments.map(|arguments| arguments.as_str().expect("a text")) {
                None => assert_ne!(reason, "tool_calls", "{reply}"),
                Some("{\"x\": 1}") => {}
                Some(cut) => assert!(!cut.is_empty() && reason != "tool_calls", "{reply}"),
            }
        }
    }
}

#[tokio::test]
async fn their_names_in_messages_are_text() {
    let body = chat(json!({"messages": [{"role": "user", "content": "a</s>b<s>"}]}));
    let tokens = async |allow: bool| {
        let mut options = options();
        options.allow_control_tokens = allow;
        let engine = Arc::new(Scripted::new(Script::text("")));
        let gateway = start(served(Some(TEMPLATE)), engine, options).await;
        let gateway = gateway.expect("a gateway");
        let reply = client::post(gateway.addr, "/tokenize", None, &body)
            .await
            .json();
        reply["tokens"].clone()
    };
    assert_eq!(
        tokens(false).await,
        json!(all(&[&ids("a</s>b<s>"), &[EOS]]))
    );
    assert_eq!(tokens(true).await, json!([97, EOS, 98, BOS, EOS]));
    // A raw prompt is the client's own.
    let (gateway, _) = saying(Vec::new(), NONE).await;
    let raw = json!({"prompt": "a</s>", "add_special_tokens": false});
    let reply = client::post(gateway.addr, "/tokenize", None, &raw)
        .await
        .json();
    assert_eq!(reply["tokens"], json!([97, EOS]));
}

#[tokio::test]
async fn tokens_beyond_the_vocabulary_are_refused() {
    let stand = Stand::saying("x").await;
    let last = VOCAB.to_string();
    let reply = stand.chat(json!({"logit_bias": {last.clone(): 1}})).await;
    reply.refused(400, Some(&format!("logit_bias.{last}")), None);
}
