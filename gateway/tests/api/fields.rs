//! Wrong types, in each field.

use serde_json::{Value, json};

use crate::stand::{Stand, chat_body};

/// A value of each type except null, which counts as absent everywhere.
fn values() -> [(char, Value); 6] {
    [
        ('b', json!(true)),
        ('i', json!(1)),
        ('f', json!(0.5)),
        ('s', json!("x")),
        ('a', json!([true])),
        ('o', json!({"a": 1})),
    ]
}

/// Fields of both kinds of requests, with the types that may be right.
const COMMON: [(&str, &str); 32] = [
    ("model", "s"),
    ("n", "i"),
    ("best_of", "i"),
    ("temperature", "if"),
    ("top_p", "if"),
    ("top_k", "i"),
    ("seed", "i"),
    ("frequency_penalty", "if"),
    ("presence_penalty", "if"),
    ("logit_bias", "o"),
    ("stop", "sa"),
    ("stop_token_ids", "a"),
    ("ignore_eos", "b"),
    ("stream", "b"),
    ("stream_options", "o"),
    ("max_tokens", "i"),
    ("user", "s"),
    ("safety_identifier", "s"),
    ("prompt_cache_key", "s"),
    ("metadata", "o"),
    ("service_tier", "s"),
    ("store", "b"),
    ("cache_prompt", "b"),
    ("request_id", "s"),
    ("min_p", ""),
    ("repetition_penalty", "i"),
    ("length_penalty", "i"),
    ("min_tokens", ""),
    ("use_beam_search", ""),
    ("skip_special_tokens", "b"),
    ("priority", ""),
    ("no_such_field", ""),
];

const CHAT: [(&str, &str); 21] = [
    ("messages", "a"),
    ("max_completion_tokens", "i"),
    ("logprobs", "b"),
    ("top_logprobs", "i"),
    ("response_format", "o"),
    ("tools", "a"),
    ("tool_choice", "so"),
    ("parallel_tool_calls", "b"),
    ("functions", ""),
    ("function_call", ""),
    ("chat_template_kwargs", "o"),
    ("chat_template", ""),
    ("reasoning_effort", "s"),
    ("add_generation_prompt", "b"),
    ("continue_final_message", ""),
    ("modalities", ""),
    ("audio", ""),
    ("prediction", ""),
    ("web_search_options", ""),
    ("verbosity", ""),
    ("echo", ""),
];

const COMPLETION: [(&str, &str); 6] = [
    ("prompt", "sa"),
    ("echo", "b"),
    ("logprobs", "i"),
    ("suffix", ""),
    ("add_special_tokens", "b"),
    ("response_format", ""),
];

async fn check(stand: &Stand, path: &str, base: &Value, fields: &[(&str, &str)]) {
    for (field, right) in fields {
        for (kind, value) in values() {
            let mut body = base.clone();
            body[field] = value;
            let reply = stand.post(path, &body).await;
            let status = reply.status.as_u16();
            if right.contains(kind) {
                // The value may be wrong all the same; the server never is.
                assert!(matches!(status, 200 | 400 | 404), "{body}: {}", reply.text);
                continue;
            }
            assert_eq!(status, 400, "{body}: {}", reply.text);
            assert_eq!(
                reply.json()["error"]["param"],
                *field,
                "{body}: {}",
                reply.text
            );
        }
        let mut body = base.clone();
        body[field] = Value::Null;
        let reply = stand.post(path, &body).await;
        let needed = ["messages", "prompt"].contains(field);
        assert_eq!(
            reply.status,
            if needed { 400 } else { 200 },
            "{body}: {}",
            reply.text
        );
    }
}

#[tokio::test]
async fn of_chats() {
    let stand = Stand::saying("x").await;
    let base = chat_body(json!({"max_tokens": 8}));
    check(&stand, "/v1/chat/completions", &base, &COMMON).await;
    check(&stand, "/v1/chat/completions", &base, &CHAT).await;
}

#[tokio::test]
async fn of_completions() {
    let stand = Stand::saying("x").await;
    let base = json!({"prompt": "a", "max_tokens": 8});
    check(&stand, "/v1/completions", &base, &COMMON).await;
    check(&stand, "/v1/completions", &base, &COMPLETION).await;
}

/// Invalid messages, and the parameter that the error names.
fn messages() -> Vec<(Value, &'static str)> {
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let call = |call: Value| json!({"messages": [{"role": "assistant", "tool_calls": [call]}]});
    vec![
        (json!({"messages": []}), "messages"),
        (json!({"messages": ["x"]}), "messages[0]"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": 1, "content": "x"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "king", "content": "x"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": null}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "messages[0].tool_call_id",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "name": 1}]}),
            "messages[0].name",
        ),
        (user(json!(1)), "messages[0].content"),
        (user(json!(["x"])), "messages[0].content[0]"),
        (
            user(json!([{"type": "text"}])),
            "messages[0].content[0].text",
        ),
        (
            user(json!([{"type": "image_url", "image_url": {"url": "data:"}}])),
            "messages[0].content[0].type",
        ),
        (
            call(json!({"id": "c"})),
            "messages[0].tool_calls[0].function",
        ),
        (
            call(json!({"id": "c", "function": {"name": "f", "arguments": [1]}})),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ]
}

/// Numbers and texts out of range.
fn ranges() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"stop": ["a", 1]}), "stop[1]"),
        (json!({"stop": [""]}), "stop[0]"),
        (json!({"stop": vec!["a"; 17]}), "stop"),
        (json!({"n": 0}), "n"),
        (json!({"n": 17}), "n"),
        (json!({"n": 1.5}), "n"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"top_p": 1.1}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 1e30}), "max_tokens"),
        (
            json!({"max_tokens": 18_446_744_073_709_551_615_u64}),
            "max_tokens",
        ),
        (
            json!({"max_tokens": 5, "max_completion_tokens": 6}),
            "max_completion_tokens",
        ),
        (json!({"seed": 1.5}), "seed"),
        (json!({"seed": 1e30}), "seed"),
        (json!({"frequency_penalty": 2.5}), "frequency_penalty"),
        (json!({"presence_penalty": -2.5}), "presence_penalty"),
        (json!({"logit_bias": {"a": 1}}), "logit_bias.a"),
        (json!({"logit_bias": {"1": "a"}}), "logit_bias.1"),
        (json!({"logit_bias": {"1": 101}}), "logit_bias.1"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
        ),
        (json!({"service_tier": "best"}), "service_tier"),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
        ),
    ]
}

/// Formats and tools that cannot be followed.
fn formats() -> Vec<(Value, &'static str)> {
    let tool = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    let schema =
        |inner: Value| json!({"response_format": {"type": "json_schema", "json_schema": inner}});
    vec![
        (json!({"response_format": {}}), "response_format.type"),
        (
            json!({"response_format": {"type": "xml"}}),
            "response_format.type",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "response_format.json_schema",
        ),
        (
            schema(json!({"name": "n"})),
            "response_format.json_schema.schema",
        ),
        (
            schema(json!({"name": "n", "schema": 1})),
            "response_format.json_schema.schema",
        ),
        (json!({"tools": [{"type": "web"}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "function"}]}),
            "tools[0].function",
        ),
        (tool(json!({"name": ""})), "tools[0].function.name"),
        (tool(json!({"name": "a b"})), "tools[0].function.name"),
        (
            tool(json!({"name": "f", "parameters": 1})),
            "tools[0].function.parameters",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (
            json!({"chat_template_kwargs": {"tools": 1}}),
            "chat_template_kwargs.tools",
        ),
    ]
}

#[tokio::test]
async fn of_what_lies_deeper() {
    let stand = Stand::saying("x").await;
    for (fields, param) in [messages(), ranges(), formats()].concat() {
        let reply = stand.chat(fields.clone()).await;
        assert_eq!(reply.status, 400, "{fields}: {}", reply.text);
        assert_eq!(
            reply.json()["error"]["param"],
            param,
            "{fields}: {}",
            reply.text
        );
    }
    assert!(stand.engine.asked.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_named_tool_has_to_be_one() {
    let stand = Stand::saying("x").await;
    let fields = json!({
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "g"}},
    });
    stand
        .chat(fields)
        .await
        .refused(400, Some("tool_choice.function.name"), None);
}
