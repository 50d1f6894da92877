//! `/v1/completions`, as lm-eval and code tools use it.

use serde_json::{Value, json};

use crate::stand::{BOS, Stand, ids};

#[tokio::test]
async fn a_completion_goes_on_with_a_text() {
    let stand = Stand::saying(" world").await;
    let body = stand
        .complete(json!({"prompt": "hello", "model": ""}))
        .await
        .json();
    assert_eq!(body["object"], "text_completion");
    assert!(body["id"].as_str().expect("an id").starts_with("cmpl-"));
    let choice = &body["choices"][0];
    assert_eq!(choice["text"], " world");
    assert_eq!(choice["finish_reason"], "stop");
    assert!(choice["logprobs"].is_null());
    let asked = stand.engine.only();
    // With the special tokens that the tokenizer adds.
    assert_eq!(asked.spec.prompt, [vec![BOS], ids("hello")].concat());
    assert_eq!(asked.spec.max_tokens, 16);
    assert_eq!(body["usage"]["prompt_tokens"], 6);
}

#[tokio::test]
async fn prompts_have_four_forms() {
    let text = |text: &str| [vec![BOS], ids(text)].concat();
    let cases: [(Value, Vec<Vec<u32>>); 5] = [
        (json!("ab"), vec![text("ab")]),
        (json!(["ab", "c"]), vec![text("ab"), text("c")]),
        (json!([97, 98]), vec![ids("ab")]),
        (json!([[97, 98], [99]]), vec![ids("ab"), ids("c")]),
        (json!(["ab", [99]]), vec![text("ab"), ids("c")]),
    ];
    for (prompt, expected) in cases {
        let stand = Stand::saying("x").await;
        let body = stand.complete(json!({"prompt": prompt})).await.json();
        let choices = body["choices"].as_array().expect("choices");
        assert_eq!(choices.len(), expected.len(), "{prompt}");
        let mut asked = stand.engine.asked.lock().expect("no panic").clone();
        asked.sort_by(|a, b| a.id.cmp(&b.id));
        let prompts: Vec<_> = asked.into_iter().map(|one| one.spec.prompt).collect();
        assert_eq!(prompts, expected, "{prompt}");
        let tokens: usize = expected.iter().map(Vec::len).sum();
        assert_eq!(body["usage"]["prompt_tokens"], tokens);
    }
}

#[tokio::test]
async fn several_prompts_times_n() {
    let stand = Stand::saying("x").await;
    let fields = json!({"prompt": ["a", "bb"], "n": 2, "echo": true});
    let body = stand.complete(fields).await.json();
    let choices = body["choices"].as_array().expect("choices");
    let texts: Vec<&str> = choices
        .iter()
        .filter_map(|one| one["text"].as_str())
        .collect();
    assert_eq!(texts, ["ax", "ax", "bbx", "bbx"]);
    assert_eq!(body["usage"]["prompt_tokens"], 5);
    assert_eq!(body["usage"]["completion_tokens"], 8);
}

/// Without a seed every answer is drawn on its own; with one, each prompt gets what it gets alone.
#[tokio::test]
async fn several_prompts_draw_on_their_own() {
    for (seed, different) in [(json!(null), 4), (json!(5), 2)] {
        let stand = Stand::saying("x").await;
        let fields = json!({"prompt": ["a", "a"], "n": 2, "seed": seed});
        stand.complete(fields).await.json();
        let asked = stand.engine.asked.lock().expect("no panic").clone();
        let mut seeds: Vec<u64> = asked.iter().map(|one| one.spec.sampling.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), different, "{seed}");
    }
}

/// What lm-eval sends to score a continuation.
#[tokio::test]
async fn echo_with_logprobs_scores_a_prompt() {
    for max_tokens in [0, 1] {
        let stand = Stand::saying("z").await;
        let fields = json!({
            "prompt": [256, 97, 98, 99], "echo": true, "logprobs": 1, "max_tokens": max_tokens,
            "temperature": 0, "seed": 1234,
        });
        let body = stand.complete(fields).await.json();
        let choice = &body["choices"][0];
        let (text, tokens) = match max_tokens {
            0 => ("abc", vec!["<s>", "a", "b", "c"]),
            _ => ("abcz", vec!["<s>", "a", "b", "c", "z"]),
        };
        assert_eq!(choice["text"], text);
        assert_eq!(choice["finish_reason"], "length");
        let logprobs = &choice["logprobs"];
        assert_eq!(logprobs["tokens"], json!(tokens));
        let offsets = [0, 0, 1, 2, 3];
        assert_eq!(logprobs["text_offset"], json!(offsets[..tokens.len()]));
        let values = logprobs["token_logprobs"].as_array().expect("a list");
        let tops = logprobs["top_logprobs"].as_array().expect("a list");
        assert_eq!((values.len(), tops.len()), (tokens.len(), tokens.len()));
        assert!(values[0].is_null() && tops[0].is_null());
        for (index, token) in tokens.iter().enumerate().skip(1) {
            let byte = f64::from(token.as_bytes()[0]);
            assert_eq!(values[index], -byte / 64.0);
            assert_eq!(tops[index][token], -byte / 64.0);
        }
        let asked = stand.engine.only();
        assert_eq!(
            (asked.spec.logprobs, asked.spec.prompt_logprobs),
            (Some(1), Some(1))
        );
    }
}

#[tokio::test]
async fn the_end_of_text_has_a_logprob_too() {
    // lm-eval drops the last entry, whatever it is: there has to be one.
    let stand = Stand::saying("").await;
    let fields = json!({"prompt": [97, 98], "echo": true, "logprobs": 1, "max_tokens": 1});
    let body = stand.complete(fields).await.json();
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["a", "b", "</s>"]));
    assert_eq!(body["choices"][0]["text"], "ab");
}

#[tokio::test]
async fn offsets_count_characters() {
    let stand = Stand::saying("\u{e9}z").await;
    let fields = json!({"prompt": "\u{e9}a", "echo": true, "logprobs": 0});
    let body = stand.complete(fields).await.json();
    let choice = &body["choices"][0];
    assert_eq!(choice["text"], "\u{e9}a\u{e9}z");
    let offsets = &choice["logprobs"]["text_offset"];
    assert_eq!(*offsets, json!([0, 0, 1, 1, 2, 3, 3, 4]));
}

#[tokio::test]
async fn a_stream_echoes_first() {
    let stand = Stand::saying("xy").await;
    let fields = json!({"prompt": "ab", "echo": true, "stream": true, "logprobs": 0});
    let chunks = stand.complete(fields).await.chunks();
    let texts: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(texts.concat(), "abxy");
    assert_eq!(texts[0], "ab");
    let tokens: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["tokens"].as_array())
        .flatten()
        .collect();
    assert_eq!(tokens, ["<s>", "a", "b", "x", "y", "</s>"]);
    let reasons = chunks
        .iter()
        .filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null());
    assert_eq!(reasons.count(), 1);
    let stand = Stand::saying("xy").await;
    let fields = json!({"prompt": "ab", "echo": true, "stream": true});
    let chunks = stand.complete(fields).await.chunks();
    assert_eq!(chunks[0]["choices"][0]["text"], "abx");
    assert!(chunks[0]["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn what_is_not_supported_is_refused() {
    let stand = Stand::saying("x").await;
    let cases = [
        (json!({"prompt": "a", "suffix": "b"}), "suffix"),
        (json!({"prompt": "a", "best_of": 2}), "best_of"),
        (json!({"prompt": "a", "max_tokens": 0}), "max_tokens"),
        (json!({}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [[]]}), "prompt"),
        (json!({"prompt": [97, "a"]}), "prompt[1]"),
        (json!({"prompt": ["a", 97]}), "prompt[1]"),
        (json!({"prompt": [97, 260]}), "prompt[1]"),
        (json!({"prompt": [-1]}), "prompt[0]"),
        (json!({"prompt": [0.5]}), "prompt[0]"),
        (json!({"prompt": vec!["a"; 129]}), "prompt"),
        (json!({"prompt": vec!["a"; 20], "n": 16}), "prompt"),
    ];
    for (fields, param) in cases {
        let reply = stand.complete(fields.clone()).await;
        assert_eq!(reply.status, 400, "{fields}: {}", reply.text);
        assert_eq!(
            reply.json()["error"]["param"],
            param,
            "{fields}: {}",
            reply.text
        );
    }
    let allowed = [
        json!({"prompt": "a", "suffix": null}),
        json!({"prompt": "a", "suffix": ""}),
    ];
    for fields in allowed {
        assert_eq!(stand.complete(fields).await.status, 200);
    }
}

#[tokio::test]
async fn too_long_a_prompt_is_told_both_lengths() {
    let stand = Stand::saying("x").await;
    let fields = json!({"prompt": vec![97; 1_990], "max_tokens": 11});
    let reply = stand.complete(fields).await;
    let message = reply.refused(400, Some("prompt"), Some("context_length_exceeded"));
    assert!(
        message.contains("2000 tokens") && message.contains("1990 in the prompt"),
        "{message}"
    );
}

/// A kernel's logprob may be above 0; in responses none is, in any of the forms.
#[tokio::test]
async fn no_logprob_is_above_0() {
    let stand = Stand::saying("Z[Z").await;
    let completion = json!({"prompt": "aZZ", "echo": true, "logprobs": 2, "max_tokens": 4});
    let chat = crate::stand::chat_body(json!({"logprobs": true, "top_logprobs": 2}));
    for (path, body) in [
        ("/v1/completions", completion),
        ("/v1/chat/completions", chat),
    ] {
        for stream in [false, true] {
            let mut body = body.clone();
            body["stream"] = json!(stream);
            let reply = stand.post(path, &body).await;
            let chunks = match stream {
                true => reply.chunks(),
                false => vec![reply.json()],
            };
            let mut certain = 0;
            for chunk in &chunks {
                certain += at_most_0(&chunk["choices"][0]["logprobs"]);
            }
            assert!(certain >= 3, "{chunks:?}");
        }
    }
}

/// Asserts that all numbers but offsets and bytes are at most 0, and returns how many are 0.
fn at_most_0(value: &Value) -> u32 {
    match value {
        Value::Number(number) => {
            let number = number.as_f64().expect("a number");
            assert!(
                number <= 0.0 && !(number == 0.0 && number.is_sign_negative()),
                "{number}"
            );
            u32::from(number == 0.0)
        }
        Value::Array(list) => list.iter().map(at_most_0).sum(),
        Value::Object(map) => {
            let told = |name: &str| !["text_offset", "bytes"].contains(&name);
            let values = map.iter().filter(|(name, _)| told(name));
            values.map(|(_, value)| at_most_0(value)).sum()
        }
        _ => 0,
    }
}
