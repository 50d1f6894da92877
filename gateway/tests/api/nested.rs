//! Unknown fields of nested objects: they change nothing, and are listed. Known fields that would
//! change an answer are refused by name.

use serde_json::{Value, json};

use crate::script::Script;
use crate::stand::{Stand, options};

/// A chat with all objects that a chat can have.
fn base() -> Value {
    json!({
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "c1", "type": "function",
                    "function": {"name": "f", "arguments": "{\"a\":1}"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "7"},
            {"role": "assistant", "content": "it is 7"},
            {"role": "user", "content": "more"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d",
            "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "text"},
        "stream": true,
        "stream_options": {"include_usage": true},
        "max_tokens": 3, "seed": 1,
    })
}

/// The prompt that the engine is asked with, and what the response says is ignored.
async fn asked(body: &Value) -> (Vec<u32>, String) {
    let stand = Stand::saying("x").await;
    let reply = stand.post("/v1/chat/completions", body).await;
    assert_eq!(reply.status, 200, "{body}: {}", reply.text);
    let told = reply.header("x-concord-ignored").to_string();
    (stand.engine.only().spec.prompt, told)
}

/// Unknown fields, as a pointer to the object, name and value. All occur in requests of common
/// clients.
fn annotations() -> Vec<(&'static str, &'static str, Value)> {
    let ephemeral = json!({"type": "ephemeral"});
    vec![
        ("/messages/0", "cache_control", ephemeral.clone()),
        ("/messages/0", "id", json!("msg-1")),
        ("/messages/1", "id", json!("msg-2")),
        ("/messages/1", "timestamp", json!(1_700_000_000)),
        ("/messages/1", "additional_kwargs", json!({})),
        ("/messages/1", "example", json!(false)),
        ("/messages/1/content/0", "cache_control", ephemeral.clone()),
        ("/messages/1/content/0", "annotations", json!([])),
        (
            "/messages/2",
            "provider_specific_fields",
            json!({"refusal": null}),
        ),
        ("/messages/2", "response_metadata", json!({"model": "m"})),
        ("/messages/2", "thinking_blocks", json!([])),
        (
            "/messages/2/tool_calls/0",
            "cache_control",
            ephemeral.clone(),
        ),
        (
            "/messages/2/tool_calls/0",
            "extra_content",
            json!({"google": {}}),
        ),
        (
            "/messages/2/tool_calls/0/function",
            "parsed_arguments",
            json!({"a": 1}),
        ),
        ("/messages/3", "is_error", json!(false)),
        ("/messages/3", "artifact", json!({"x": 1})),
        ("/messages/3", "cache_control", ephemeral.clone()),
        (
            "/messages/4",
            "annotations",
            json!([{"type": "url_citation"}]),
        ),
        ("/messages/4", "parsed", json!({"a": 1})),
        ("/messages/4", "finish_reason", json!("stop")),
        ("/messages/4", "usage", json!({"total_tokens": 3})),
        ("/tools/0", "cache_control", ephemeral.clone()),
        ("/tools/0", "defer_loading", json!(true)),
        ("/tools/0/function", "cache_control", ephemeral),
        ("/tools/0/function", "examples", json!([])),
        ("/tool_choice", "name", json!("f")),
        ("/tool_choice/function", "description", json!("d")),
        ("/response_format", "name", json!("n")),
        ("/stream_options", "chunk_size", json!(5)),
    ]
}

#[tokio::test]
async fn annotations_change_nothing_and_are_told() {
    let (prompt, told) = asked(&base()).await;
    assert_eq!(told, "");
    for (place, name, value) in annotations() {
        let mut body = base();
        body.pointer_mut(place).expect(place)[name] = value;
        let (same, told) = asked(&body).await;
        assert_eq!(same, prompt, "{place}/{name}");
        let path = place.trim_start_matches('/').split('/');
        let path = path.fold(String::new(), |path, part| match part.parse::<u32>() {
            Ok(index) => format!("{path}[{index}]"),
            Err(_) if path.is_empty() => part.to_string(),
            Err(_) => format!("{path}.{part}"),
        });
        assert_eq!(told, format!("{path}.{name}"));
        // Null counts as absent, and is not listed.
        let mut body = base();
        body.pointer_mut(place).expect(place)[name] = Value::Null;
        assert_eq!(asked(&body).await, (prompt.clone(), String::new()));
    }
}

/// Known fields of nested objects that change nothing with these values; they are not listed.
#[tokio::test]
async fn known_ones_are_not_even_told() {
    let (prompt, _) = asked(&base()).await;
    let known = [
        ("/messages/2", "refusal", Value::Null),
        ("/messages/2", "audio", Value::Null),
        ("/messages/2", "function_call", Value::Null),
        ("/messages/4", "tool_calls", Value::Null),
        ("/messages/4", "tool_calls", json!([])),
        ("/messages/4", "refusal", json!("no")),
        ("/messages/4", "prefix", json!(false)),
        ("/messages/1", "images", json!([])),
        ("/messages/2/tool_calls/0", "index", json!(0)),
        ("/tools/0", "strict", json!(true)),
        ("/tools/0/function", "strict", json!(true)),
        ("/stream_options", "include_obfuscation", json!(false)),
        ("", "parallel_tool_calls", json!(true)),
        ("", "user", json!("u")),
        ("", "metadata", json!({"a": "b"})),
        ("", "service_tier", json!("default")),
        ("", "safety_identifier", json!("s")),
        ("", "prompt_cache_key", json!("k")),
        ("", "cache_prompt", json!(true)),
        ("", "request_id", json!("r")),
        ("", "min_p", json!(0.0)),
        ("", "repeat_penalty", json!(1.0)),
        ("", "bad_words", json!([])),
        ("", "functions", Value::Null),
        ("", "audio", Value::Null),
    ];
    for (place, name, value) in known {
        let mut body = base();
        body.pointer_mut(place).expect(place)[name] = value.clone();
        assert_eq!(
            asked(&body).await,
            (prompt.clone(), String::new()),
            "{name}: {value}"
        );
    }
    for (name, value) in [("store", json!(true)), ("service_tier", json!("flex"))] {
        let mut body = base();
        body[name] = value;
        assert_eq!(asked(&body).await, (prompt.clone(), name.to_string()));
    }
}

/// Two ways to say the same.
#[tokio::test]
async fn contents_that_are_the_same() {
    let chat = |message: Value| {
        let next = json!({"role": "user", "content": "more"});
        json!({"messages": [{"role": "user", "content": "hi"}, message, next]})
    };
    let call = |arguments: Value| {
        json!({"role": "assistant", "content": "", "tool_calls":
            [{"id": "c", "function": {"name": "f", "arguments": arguments}}]})
    };
    let mut without_content = call(json!("{}"));
    without_content
        .as_object_mut()
        .expect("an object")
        .remove("content");
    let mut with_null = call(json!("{}"));
    with_null["content"] = Value::Null;
    let mut without_arguments = call(json!(""));
    without_arguments["tool_calls"][0]["function"] = json!({"name": "f"});
    let assistant = |content: Value| json!({"role": "assistant", "content": content});
    let tool = |content: Value| json!({"role": "tool", "tool_call_id": "c", "content": content});
    let text = |kind: &str| json!([{"type": kind, "text": "a"}, {"type": kind, "text": "b"}]);
    let pairs = [
        (call(json!("{}")), without_content),
        (call(json!("{}")), with_null),
        (call(json!("{}")), call(json!(""))),
        (call(json!("{}")), call(json!({}))),
        (call(json!("{}")), call(Value::Null)),
        (call(json!("{}")), without_arguments),
        (call(json!("{\"a\":1}")), call(json!({"a": 1}))),
        (assistant(json!("")), assistant(Value::Null)),
        (assistant(json!("")), json!({"role": "assistant"})),
        (assistant(json!("")), assistant(json!([]))),
        (assistant(json!("a\nb")), assistant(text("text"))),
        (assistant(json!("a\nb")), assistant(text("output_text"))),
        (
            assistant(json!("no")),
            json!({"role": "assistant", "content": null, "refusal": "no"}),
        ),
        (
            assistant(json!("no")),
            assistant(json!([{"type": "refusal", "refusal": "no"}])),
        ),
        (tool(json!("a\nb")), tool(text("text"))),
        (tool(json!("")), tool(json!([]))),
        (tool(json!("")), tool(Value::Null)),
        (
            json!({"role": "system", "content": "a\nb"}),
            json!({"role": "developer", "content": text("input_text")}),
        ),
    ];
    for (one, other) in pairs {
        let (one, other) = (chat(one), chat(other));
        assert_eq!(asked(&one).await.0, asked(&other).await.0, "{one} {other}");
    }
}

/// Fields that would change the answer: a pointer to the object, name and value, and the parameter
/// that the error names.
fn meanings() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let call = json!({"name": "f", "arguments": "{}"});
    vec![
        ("/messages/4", "prefix", json!(true), "messages[4].prefix"),
        ("/messages/4", "partial", json!(true), "messages[4].partial"),
        (
            "/messages/4",
            "function_call",
            call,
            "messages[4].function_call",
        ),
        (
            "/messages/4",
            "audio",
            json!({"id": "a"}),
            "messages[4].audio",
        ),
        (
            "/messages/1",
            "images",
            json!(["aGk="]),
            "messages[1].images",
        ),
        (
            "/tool_choice",
            "disable_parallel_tool_use",
            json!(true),
            "tool_choice.disable_parallel_tool_use",
        ),
        (
            "/response_format",
            "schema",
            json!({}),
            "response_format.schema",
        ),
        (
            "/response_format",
            "json_schema",
            json!({"schema": {}}),
            "response_format.json_schema",
        ),
        (
            "/stream_options",
            "continuous_usage_stats",
            json!(true),
            "stream_options.continuous_usage_stats",
        ),
        ("", "thinking", json!({"type": "enabled"}), "thinking"),
        ("", "guided_regex", json!("a+"), "guided_regex"),
        (
            "",
            "structured_outputs",
            json!({"regex": "a"}),
            "structured_outputs",
        ),
        ("", "bad_words", json!(["a"]), "bad_words"),
        (
            "",
            "truncate_prompt_tokens",
            json!(5),
            "truncate_prompt_tokens",
        ),
        ("", "cache_salt", json!("s"), "cache_salt"),
    ]
}

/// Fields that would change the answer are not dropped.
#[tokio::test]
async fn what_means_something_is_refused_by_name() {
    let stand = Stand::saying("x").await;
    for (place, name, value, param) in meanings() {
        let mut body = base();
        body.pointer_mut(place).expect(place)[name] = value;
        let reply = stand.post("/v1/chat/completions", &body).await;
        assert_eq!(reply.status, 400, "{param}: {}", reply.text);
        assert_eq!(reply.json()["error"]["param"], param, "{}", reply.text);
    }
    assert!(stand.engine.asked.lock().expect("no panic").is_empty());
}

/// Other servers take a schema beside the type: it is kept to.
#[tokio::test]
async fn a_schema_beside_the_type_is_one() {
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let formats = [
        json!({"type": "json_object", "schema": schema}),
        json!({"type": "json_schema", "schema": schema, "strict": true}),
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "x": 1}}),
    ];
    let mut grammars = Vec::new();
    for format in formats {
        let stand = Stand::saying("{}").await;
        let reply = stand.chat(json!({"response_format": format})).await;
        assert_eq!(reply.status, 200, "{format}: {}", reply.text);
        grammars.push(stand.engine.only().spec.sampling.grammar);
    }
    assert!(grammars[0].is_some());
    assert!(
        grammars.iter().all(|grammar| *grammar == grammars[0]),
        "{grammars:?}"
    );
}

#[tokio::test]
async fn tokenize_reads_messages_alike() {
    let stand = Stand::saying("x").await;
    let message = json!({"role": "user", "content": "hi", "cache_control": {}});
    let reply = stand
        .post("/tokenize", &json!({"messages": [message]}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        reply.header("x-concord-ignored"),
        "messages[0].cache_control"
    );
}

/// Fields that are passed to the template but never read by it are listed as well.
#[tokio::test]
async fn fields_that_the_template_does_not_read_are_told() {
    let body = json!({
        "messages": [
            {"role": "user", "content": "hi", "name": "ann"},
            {"role": "assistant", "content": "a", "reasoning_content": "b", "reasoning": "c"},
            {"role": "assistant", "content": "a", "reasoning": "c"},
            {"role": "user", "content": "more"},
        ],
        "chat_template_kwargs": {"think": true, "budget": 7},
        "reasoning_effort": "low",
    });
    let told = |template: &'static str| {
        let body = body.clone();
        async move {
            let stand = Stand::with(options(), Script::text("x"), Some(template)).await;
            let mut told = Vec::new();
            for path in ["/v1/chat/completions", "/tokenize"] {
                let reply = stand.post(path, &body).await;
                assert_eq!(reply.status, 200, "{path}: {}", reply.text);
                told.push(reply.header("x-concord-ignored").to_string());
            }
            assert_eq!(told[0], told[1]);
            told.remove(0)
        }
    };
    let reads_none = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}";
    assert_eq!(
        told(reads_none).await,
        "messages[1].reasoning, messages[0].name, messages[1].reasoning_content, \
         messages[2].reasoning, chat_template_kwargs.think, chat_template_kwargs.budget, \
         reasoning_effort"
    );
    let reads_some = "{% for m in messages %}{{ m.get('name') }}{% endfor %}\
                      {{ reasoning_effort }}{% if think %}x{% endif %}";
    assert_eq!(
        told(reads_some).await,
        "messages[1].reasoning, messages[1].reasoning_content, messages[2].reasoning, \
         chat_template_kwargs.budget"
    );
    let reads_all = "{% for m in messages %}{{ m | tojson }}{% endfor %}\
                     {{ think }}{{ budget }}{{ reasoning_effort }}";
    assert_eq!(told(reads_all).await, "messages[1].reasoning");
}
