//! `/v1/chat/completions`, in one piece.

use concord_proto::serving::{Finish, GrammarSpec, choice_seed};
use concord_proto::{Digest, Domain, F32Bits};
use serde_json::json;

use crate::script::{End, Script};
use crate::stand::{CHAT_PROMPT, EOS, POSITIONS, Stand, adapter, chat_body, deployment, ids};

#[tokio::test]
async fn an_answer_has_the_fields_that_clients_read() {
    let stand = Stand::saying("Hello, \u{e9}\u{1F600}!").await;
    let reply = stand.chat(json!({"model": "tiny/model", "seed": 7})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    let id = body["id"].as_str().expect("an id").to_string();
    assert!(id.starts_with("chatcmpl-"), "{id}");
    assert_eq!(reply.header("x-request-id"), id);
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "tiny/model");
    assert!(body["created"].as_u64().expect("seconds") > 1_700_000_000);
    assert!(
        body["system_fingerprint"]
            .as_str()
            .expect("a text")
            .starts_with("fp_")
    );
    assert_eq!(body["seed"], 7);
    let choice = &body["choices"][0];
    assert_eq!(choice["index"], 0);
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], "Hello, \u{e9}\u{1F600}!");
    assert_eq!(choice["finish_reason"], "stop");
    assert!(choice["logprobs"].is_null());
    let prompt = CHAT_PROMPT.len() as u64;
    let usage = &body["usage"];
    assert_eq!(usage["prompt_tokens"], prompt);
    assert_eq!(usage["completion_tokens"], 15);
    assert_eq!(usage["total_tokens"], prompt + 15);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 3);
}

#[tokio::test]
async fn the_engine_gets_all_that_determines_the_answer() {
    let stand = Stand::saying("x").await;
    let fields = json!({
        "model": "tuned", "temperature": 1.5, "top_p": 0.9, "top_k": 5, "seed": -1,
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "max_completion_tokens": 9,
        "logit_bias": {"12": 3, "5": -100.0}, "logprobs": true, "top_logprobs": 4,
        "user": "ann", "metadata": {"a": "b"}, "store": false, "service_tier": "auto",
        "parallel_tool_calls": true, "n": 1, "stop": null, "best_of": 1,
    });
    let body = chat_body(fields);
    let reply = stand.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["model"], "tuned");
    let asked = stand.engine.only();
    let (spec, sampling) = (&asked.spec, &asked.spec.sampling);
    assert_eq!(spec.deployment, deployment().id());
    assert_eq!(spec.adapter, Some(adapter()));
    assert_eq!(spec.prompt, ids(CHAT_PROMPT));
    assert_eq!(spec.max_tokens, 9);
    assert_eq!(spec.stop_tokens, [EOS]);
    assert_eq!(sampling.temperature, F32Bits::from(1.5));
    assert_eq!(sampling.top_p, F32Bits::from(0.9));
    assert_eq!(sampling.top_k, 5);
    assert_eq!(sampling.seed, u64::MAX);
    assert_eq!(sampling.frequency_penalty, F32Bits::from(0.5));
    assert_eq!(sampling.presence_penalty, F32Bits::from(-0.5));
    let bias = [(5, F32Bits::from(-100.0)), (12, F32Bits::from(3.0))];
    assert_eq!(sampling.logit_bias, bias);
    assert_eq!(asked.spec.logprobs, Some(4));
    assert_eq!(asked.spec.prompt_logprobs, None);
    assert_eq!(asked.model, "tuned");
    let id = reply.json()["id"].as_str().expect("an id").to_string();
    assert_eq!(asked.id, format!("{id}-0"));
    assert_eq!(
        asked.body,
        Digest::of(Domain::Text, body.to_string().as_bytes())
    );
}

#[tokio::test]
async fn what_a_request_leaves_open_comes_from_the_model() {
    let stand = Stand::saying("x").await;
    let first = stand.chat(json!({})).await.json();
    let asked = stand.engine.only();
    let sampling = &asked.spec.sampling;
    assert_eq!(sampling.temperature, F32Bits::from(0.5));
    assert_eq!(sampling.top_p, F32Bits::from(0.75));
    assert_eq!(sampling.top_k, 7);
    assert_eq!(sampling.frequency_penalty, F32Bits::from(0.0));
    assert_eq!(sampling.grammar, None);
    assert_eq!(asked.spec.logprobs, None);
    let room = POSITIONS - CHAT_PROMPT.len() as u32;
    assert_eq!(asked.spec.max_tokens, room);
    assert_eq!(asked.spec.adapter, None);
    // A random seed is in the response, so that the answer can be asked for again.
    assert_eq!(first["seed"], sampling.seed);
    let second = stand.chat(json!({})).await.json();
    assert_ne!(first["seed"], second["seed"]);
    assert_eq!(first["system_fingerprint"], second["system_fingerprint"]);
}

#[tokio::test]
async fn zero_temperature_is_greedy() {
    let stand = Stand::saying("x").await;
    stand.chat(json!({"temperature": 0})).await;
    let sampling = stand.engine.only().spec.sampling;
    assert_eq!(sampling.temperature, F32Bits::from(0.0));
}

#[tokio::test]
async fn a_temperature_near_zero_is_raised() {
    for (asked, drawn) in [(1e-60, 0.01), (0.002, 0.01), (0.02, 0.02)] {
        let stand = Stand::saying("x").await;
        stand.chat(json!({"temperature": asked})).await;
        let sampling = stand.engine.only().spec.sampling;
        assert_eq!(sampling.temperature, F32Bits::from(drawn), "{asked}");
    }
}

#[tokio::test]
async fn choices_have_seeds_and_receipts_of_their_own() {
    let stand = Stand::saying("abc").await;
    let body = stand.chat(json!({"n": 3, "seed": 11})).await.json();
    let choices = body["choices"].as_array().expect("choices");
    let indices: Vec<u64> = choices
        .iter()
        .filter_map(|one| one["index"].as_u64())
        .collect();
    assert_eq!(indices, [0, 1, 2]);
    assert!(
        choices
            .iter()
            .all(|choice| choice["message"]["content"] == "abc")
    );
    // The prompt counts once.
    assert_eq!(body["usage"]["prompt_tokens"], CHAT_PROMPT.len());
    assert_eq!(body["usage"]["completion_tokens"], 12);
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
    let asked = stand.engine.asked.lock().expect("no panic").clone();
    for (index, generation) in asked.iter().enumerate() {
        assert_eq!(generation.spec.sampling.seed, choice_seed(11, index as u32));
        assert!(generation.id.ends_with(&format!("-{index}")));
    }
    let closed = stand.engine.closed(3).await;
    let text = Digest::of(Domain::Text, b"abc");
    assert!(closed.iter().all(|(_, digest, _)| *digest == text));
}

#[tokio::test]
async fn stop_texts_end_the_answer_and_are_no_part_of_it() {
    let cases = [
        (json!("END"), "one two ", "stop"),
        (json!(["three", "END"]), "one two ", "stop"),
        (json!(["two"]), "one ", "stop"),
        (json!(["o"]), "", "stop"),
        (json!("ENDING"), "one two END ENDE", "stop"),
        (json!(null), "one two END ENDE", "stop"),
        (json!([]), "one two END ENDE", "stop"),
    ];
    for (stop, expected, reason) in cases {
        let stand = Stand::saying("one two END ENDE").await;
        let body = stand
            .chat(json!({"stop": stop, "logprobs": true}))
            .await
            .json();
        let choice = &body["choices"][0];
        assert_eq!(choice["message"]["content"], expected, "{stop}");
        assert_eq!(choice["finish_reason"], reason, "{stop}");
        let closed = stand.engine.closed(1).await;
        assert_eq!(closed[0].1, Digest::of(Domain::Text, expected.as_bytes()));
        // The receipt is told what the engine may not know: a stop text may come too late for it.
        let due = match expected.ends_with("ENDE") {
            true => Finish::StopToken,
            false => Finish::StopText,
        };
        assert_eq!(closed[0].2, due, "{stop}");
        let texts = stand.engine.only().spec.stop_texts;
        assert_eq!(
            texts.len(),
            stop.as_array()
                .map_or(usize::from(stop.is_string()), Vec::len)
        );
        // Logprobs of a text that was cut off would show it.
        let content = choice["logprobs"]["content"].as_array().expect("a list");
        let shown: Vec<&str> = content
            .iter()
            .filter_map(|one| one["token"].as_str())
            .collect();
        let shown = shown.concat();
        let shown = shown.strip_suffix("</s>").unwrap_or(&shown);
        assert_eq!(shown, expected, "{stop}");
    }
}

#[tokio::test]
async fn reasons_of_an_end() {
    let stand = Stand::saying("abcdef").await;
    let body = stand.chat(json!({"max_tokens": 3})).await.json();
    assert_eq!(body["choices"][0]["message"]["content"], "abc");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    let body = stand.chat(json!({"max_tokens": 7})).await.json();
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    // Text that might have been the start of a stop text is sent after all.
    let body = stand
        .chat(json!({"max_tokens": 3, "stop": "cd"}))
        .await
        .json();
    assert_eq!(body["choices"][0]["message"]["content"], "abc");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn the_end_of_text_can_be_ignored() {
    let stand = Stand::saying("abc").await;
    stand
        .chat(json!({"ignore_eos": true, "stop_token_ids": [99, 3]}))
        .await;
    assert_eq!(stand.engine.only().spec.stop_tokens, [3, 99]);
}

#[tokio::test]
async fn logprobs_have_tokens_bytes_and_alternatives() {
    let stand = Stand::saying("b\u{e9}").await;
    let body = stand
        .chat(json!({"logprobs": true, "top_logprobs": 2}))
        .await
        .json();
    let content = &body["choices"][0]["logprobs"]["content"];
    assert_eq!(content.as_array().expect("a list").len(), 4);
    assert_eq!(content[0]["token"], "b");
    assert_eq!(content[0]["bytes"], json!([98]));
    assert_eq!(content[0]["logprob"], -98.0 / 64.0);
    assert_eq!(content[0]["top_logprobs"][1]["token"], "c");
    assert_eq!(content[0]["top_logprobs"][1]["logprob"], -99.0 / 64.0);
    // Half a character: its byte tells what its text cannot.
    assert_eq!(content[1]["token"], "\u{fffd}");
    assert_eq!(content[1]["bytes"], json!([0xC3]));
    assert_eq!(content[3]["token"], "</s>");
}

#[tokio::test]
async fn broken_bytes_come_as_replacement_characters() {
    let mut script = Script::text("");
    script.tokens = vec![0x61, 0xC3, 0x62, 0xF0, 0x9F, EOS];
    let stand = Stand::playing(script).await;
    let body = stand.chat(json!({})).await.json();
    let content = &body["choices"][0]["message"]["content"];
    assert_eq!(content, "a\u{fffd}b\u{fffd}");
}

#[tokio::test]
async fn grammars_hold() {
    let stand = Stand::saying(r#"{"name":"Ann","age":7}"#).await;
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let format = json!({
        "type": "json_schema",
        "json_schema": {"name": "person", "strict": true, "schema": schema},
    });
    let body = stand.chat(json!({"response_format": format})).await.json();
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["content"], r#"{"name":"Ann","age":7}"#);
    assert_eq!(choice["finish_reason"], "stop");
    let grammar = stand.engine.only().spec.sampling.grammar;
    assert_eq!(grammar, Some(GrammarSpec::JsonSchema(schema.to_string())));
}

#[tokio::test]
async fn a_grammar_bends_what_the_model_would_say() {
    let stand = Stand::saying("no JSON at all").await;
    let schema = json!({"type": "object", "properties": {"ok": {"const": true}},
                        "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let body = stand
        .chat(json!({"response_format": format, "max_tokens": 64}))
        .await
        .json();
    let content = body["choices"][0]["message"]["content"]
        .as_str()
        .expect("a text");
    assert!(content.starts_with('{'), "{content}");
}

#[tokio::test]
async fn all_choices_follow_the_grammar() {
    let stand = Stand::saying(r#"{"ok":true}"#).await;
    let schema = json!({"type": "object", "properties": {"ok": {"const": true}},
                        "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let body = stand.chat(json!({"response_format": format, "n": 3})).await;
    let body = body.json();
    let choices = body["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 3);
    for choice in choices {
        assert_eq!(choice["message"]["content"], r#"{"ok":true}"#);
        assert_eq!(choice["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn a_json_object_is_a_grammar_too() {
    let stand = Stand::saying("{}").await;
    let body = stand
        .chat(json!({"response_format": {"type": "json_object"}}))
        .await
        .json();
    assert_eq!(body["choices"][0]["message"]["content"], "{}");
    let grammar = stand.engine.only().spec.sampling.grammar;
    assert_eq!(grammar, Some(GrammarSpec::JsonObject));
}

#[tokio::test]
async fn a_bad_schema_is_the_clients_fault() {
    let stand = Stand::saying("x").await;
    let schema = json!({"type": "no such type"});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let reply = stand.chat(json!({"response_format": format})).await;
    reply.refused(400, Some("response_format"), None);
}

fn tools() -> serde_json::Value {
    json!([{
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells it",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": false,
            },
        },
    }])
}

#[tokio::test]
async fn calls_of_tools_are_found_in_the_answer() {
    let call = r#"<tool_call>
{"name": "weather", "arguments": {"city": "Oslo"}}
</tool_call>"#;
    let stand = Stand::saying(call).await;
    let body = stand.chat(json!({"tools": tools()})).await.json();
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{body}");
    assert!(choice["message"]["content"].is_null(), "{body}");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["type"], "function");
    assert_eq!(call["id"].as_str().expect("an id").len(), 9);
    assert_eq!(call["function"]["name"], "weather");
    // A text, not an object.
    assert_eq!(call["function"]["arguments"], r#"{"city": "Oslo"}"#);
    let prompt = String::from_utf8(
        stand
            .engine
            .only()
            .spec
            .prompt
            .iter()
            .map(|id| *id as u8)
            .collect(),
    );
    assert!(prompt.expect("UTF-8").contains("tools 1\n"));
}

#[tokio::test]
async fn calls_can_be_forced_and_forbidden() {
    let stand = Stand::saying(
        r#"<tool_call>
{"name": "weather", "arguments": {"city":"Rome"}}
</tool_call>"#,
    )
    .await;
    let named = json!({"type": "function", "function": {"name": "weather"}});
    for choice in [json!("required"), named] {
        let fields = json!({"tools": tools(), "tool_choice": choice, "max_tokens": 200});
        let body = stand.chat(fields).await.json();
        let message = &body["choices"][0]["message"];
        assert_eq!(
            message["tool_calls"][0]["function"]["name"], "weather",
            "{body}"
        );
        assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    }
    let asked = stand.engine.asked.lock().expect("no panic").clone();
    let grammars = asked.iter().map(|one| &one.spec.sampling.grammar);
    assert!(
        grammars
            .into_iter()
            .all(|grammar| matches!(grammar, Some(GrammarSpec::Lark(_))))
    );
    let stand = Stand::saying("<tool_call>no</tool_call>").await;
    let body = stand
        .chat(json!({"tools": tools(), "tool_choice": "none"}))
        .await
        .json();
    let message = &body["choices"][0]["message"];
    assert_eq!(message["content"], "<tool_call>no</tool_call>");
    assert!(message["tool_calls"].is_null());
}

#[tokio::test]
async fn a_call_that_is_cut_off_is_told_as_such() {
    let call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"";
    let stand = Stand::saying(call).await;
    let fields = json!({"tools": tools(), "max_tokens": call.len() - 2});
    let body = stand.chat(fields).await.json();
    assert_eq!(body["choices"][0]["finish_reason"], "length", "{body}");
}

#[tokio::test]
async fn earlier_calls_and_their_results_reach_the_template() {
    let stand = Stand::saying("fine").await;
    let body = json!({"messages": [
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": "9"},
    ]});
    let reply = stand.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let prompt: Vec<u8> = stand
        .engine
        .only()
        .spec
        .prompt
        .iter()
        .map(|id| *id as u8)
        .collect();
    let prompt = String::from_utf8(prompt).expect("UTF-8");
    let expected = "system: be short\nuser: a\nb\nassistant: \n<tool_call>{\"name\": \"f\", \
                    \"arguments\": {\"x\": 1}}</tool_call>\ntool: 9\nassistant: ";
    assert_eq!(prompt, expected);
}

#[tokio::test]
async fn thoughts_are_told_apart() {
    let stand = Stand::saying("hm, so</think>\n\nYes.").await;
    let body = stand
        .chat(json!({"chat_template_kwargs": {"think": true}}))
        .await
        .json();
    let message = &body["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "hm, so");
    assert_eq!(message["content"], "Yes.");
    // The receipt is for all of it.
    let closed = stand.engine.closed(1).await;
    let text = b"hm, so</think>\n\nYes.";
    assert_eq!(closed[0].1, Digest::of(Domain::Text, text));
}

#[tokio::test]
async fn too_long_a_request_is_told_both_lengths() {
    let stand = Stand::saying("x").await;
    let prompt = CHAT_PROMPT.len() as u32;
    let reply = stand
        .chat(json!({"max_tokens": POSITIONS - prompt + 1}))
        .await;
    let message = reply.refused(400, Some("messages"), Some("context_length_exceeded"));
    assert!(
        message.contains(&format!("maximum context length is {POSITIONS} tokens")),
        "{message}"
    );
    assert!(
        message.contains(&format!("{prompt} in the messages")),
        "{message}"
    );
    let body = json!({"messages": [{"role": "user", "content": "x".repeat(POSITIONS as usize)}]});
    let reply = stand.post("/v1/chat/completions", &body).await;
    reply.refused(400, Some("messages"), Some("context_length_exceeded"));
    let reply = stand.chat(json!({"max_tokens": POSITIONS - prompt})).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_engine_that_fails_or_goes_is_told_as_such() {
    let stand = Stand::playing(Script::cut("ab", End::Fail { retry: true })).await;
    let reply = stand.chat(json!({})).await;
    let message = reply.refused(503, None, Some("failed"));
    assert!(message.contains("a stage is lost"), "{message}");
    assert_eq!(reply.header("retry-after"), "5");
    let stand = Stand::playing(Script::cut("ab", End::Fail { retry: false })).await;
    let reply = stand.chat(json!({})).await;
    reply.refused(500, None, None);
    assert_eq!(reply.header("x-should-retry"), "false");
    let stand = Stand::playing(Script::cut("ab", End::Vanish)).await;
    stand.chat(json!({})).await.refused(500, None, None);
}
