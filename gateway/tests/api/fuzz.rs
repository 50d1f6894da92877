//! Requests that nobody would write.

use std::cell::Cell;
use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::client::post_bytes;
use crate::stand::Stand;

const PATHS: [&str; 7] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
];

const NAMES: [&str; 36] = [
    "messages",
    "role",
    "content",
    "model",
    "prompt",
    "n",
    "stop",
    "stream",
    "stream_options",
    "include_usage",
    "temperature",
    "top_p",
    "seed",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "max_tokens",
    "echo",
    "tools",
    "tool_choice",
    "type",
    "function",
    "name",
    "parameters",
    "response_format",
    "json_schema",
    "schema",
    "tool_calls",
    "id",
    "arguments",
    "input",
    "tokens",
    "lora_name",
    "lora_path",
    "chat_template_kwargs",
    "text",
];

const TEXTS: [&str; 14] = [
    "user",
    "assistant",
    "tool",
    "hi",
    "",
    "function",
    "text",
    "json_schema",
    "json_object",
    "object",
    "required",
    "auto",
    "tuned",
    "\u{0}\u{1F600}",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-2_i64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(TEXTS.to_vec()).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let name = prop_oneof![
            9 => proptest::sample::select(NAMES.to_vec()).prop_map(str::to_string),
            1 => ".{0,8}",
        ];
        let fields = proptest::collection::vec((name, inner.clone()), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Fields that are right on their own.
fn right() -> Vec<(&'static str, Value)> {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
    vec![
        ("stream", json!(true)),
        ("temperature", json!(0.5)),
        ("stop", json!(["a", "x"])),
        ("seed", json!(-1)),
        ("max_tokens", json!(3)),
        ("logit_bias", json!({"3": 1})),
        ("model", json!("tuned")),
        ("user", json!("u")),
        ("top_k", json!(-1)),
        ("logprobs", json!(true)),
        ("logprobs", json!(2)),
        ("top_logprobs", json!(2)),
        ("echo", json!(true)),
        ("tools", json!([tool])),
        ("tool_choice", json!("required")),
        ("response_format", json!({"type": "json_object"})),
        ("prompt", json!([[1, 2], [3]])),
    ]
}

/// An object with most of the fields that its path needs.
fn body(path: &'static str) -> impl Strategy<Value = Value> {
    let base = match path {
        "/v1/chat/completions" => json!({"messages": [{"role": "user", "content": "hi"}]}),
        "/detokenize" => json!({"tokens": [1, 2]}),
        "/v1/load_lora_adapter" => json!({"lora_name": "n", "lora_path": "p"}),
        "/v1/unload_lora_adapter" => json!({"lora_name": "n"}),
        "/v1/embeddings" => json!({"input": "hi"}),
        _ => json!({"prompt": "hi"}),
    };
    let field = prop_oneof![
        4 => proptest::sample::select(right()),
        1 => (proptest::sample::select(NAMES.to_vec()), value()),
    ];
    let fields = proptest::collection::vec(field, 0..4);
    fields.prop_map(move |fields| {
        let fields: Map<String, Value> = fields
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect();
        let mut body = base.clone();
        body.as_object_mut().expect("an object").extend(fields);
        body
    })
}

fn bytes(path: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let mutated = (body(path), any::<prop::sample::Index>(), any::<u8>());
    let mutated = mutated.prop_map(|(body, at, byte)| {
        let mut bytes = body.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    prop_oneof![
        6 => body(path).prop_map(|body| body.to_string().into_bytes()),
        2 => mutated,
        1 => value().prop_map(|value| value.to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..64),
    ]
}

fn request() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let path = proptest::sample::select(PATHS.to_vec());
    path.prop_flat_map(|path| (Just(path), bytes(path)))
}

/// Whether the request was answered, and not refused.
async fn check(addr: SocketAddr, path: &str, body: Vec<u8>) -> Result<bool, TestCaseError> {
    let shown = String::from_utf8_lossy(&body).into_owned();
    let reply = post_bytes(addr, path, None, body).await;
    let status = reply.status.as_u16();
    // 404 is for models. A 5xx would be the gateway's fault, and a panic would give no response.
    prop_assert!([200, 400, 404].contains(&status), "{shown}: {}", reply.text);
    if status != 200 {
        let message = &reply.json()["error"]["message"];
        prop_assert!(message.is_string(), "{shown}: {}", reply.text);
    }
    Ok(status == 200)
}

#[test]
fn every_request_gets_an_answer() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stand = runtime.block_on(Stand::saying("x"));
    let mut runner = TestRunner::new(Config {
        cases: 3_000,
        failure_persistence: None,
        ..Config::default()
    });
    let answered = Cell::new(0);
    let outcome = runner.run(&request(), |(path, body)| {
        let is_answered = runtime.block_on(check(stand.addr, path, body))?;
        answered.set(answered.get() + u32::from(is_answered));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    // Some requests are answered and some refused, so they are more than noise.
    assert!((300..2_700).contains(&answered.get()), "{}", answered.get());
    let reply = runtime.block_on(stand.chat(json!({})));
    assert_eq!(reply.status, 200);
}
