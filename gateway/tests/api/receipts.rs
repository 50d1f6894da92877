//! Receipts that are fetched and read again.

use concord_gateway::receipt_file::{self, ReceiptError};
use concord_gateway::{GatewayOptions, new_key};
use concord_proto::serving::{
    BatchedReceipt, ClaimedDraws, Finish, GenerationSpec, GivenLogprobs, GrammarSpec, Receipt,
    SamplingSpec, StageClaim, TokenLogprob, TokenReading, Usage, tokens_digest,
};
use concord_proto::{Digest, Domain, Keypair, Layers, Signed, canonical};
use serde_json::{Value, json};

use crate::client::{get, post};
use crate::script::{BROKEN_RECEIPT, Script};
use crate::stand::{Stand, adapter, chat_body, deployment, options};

/// A receipt, and another one that was signed with it.
fn receipt(id: &str) -> BatchedReceipt {
    let spec = spec();
    let claim = claim(&spec);
    let logprob = |token, top| TokenLogprob {
        token,
        logprob: (-0.25).into(),
        top,
    };
    let worker = Keypair::from_secret([1; 32]);
    let receipt = Receipt {
        id: id.to_string(),
        deployment: deployment(),
        model: "tuned".to_string(),
        spec,
        answer: vec![5, 2],
        logprobs: GivenLogprobs {
            prompt: vec![logprob(2, vec![]), logprob(3, vec![])],
            answer: [5, 2]
                .map(|token| logprob(token, vec![(9, (-0.5).into())]))
                .to_vec(),
        },
        finish: Finish::StopToken,
        usage: Usage {
            prompt: 3,
            cached: 0,
            answer: 2,
        },
        body: Digest::of(Domain::Text, b"body"),
        text: Digest::of(Domain::Text, b"text"),
        claims: vec![Signed::new(&worker, &claim)],
        issued: 1_700_000_000,
    };
    let other = Receipt {
        id: "another".to_string(),
        ..receipt.clone()
    };
    let both = [&other, &receipt].map(canonical::encode).to_vec();
    let mut batch = BatchedReceipt::sign(&Keypair::from_secret([2; 32]), both);
    batch.pop().expect("two receipts")
}

/// What was asked for.
fn spec() -> GenerationSpec {
    GenerationSpec {
        deployment: deployment().id(),
        adapter: Some(adapter()),
        prompt: vec![1, 2, 3],
        sampling: SamplingSpec {
            temperature: 0.7.into(),
            top_k: 40,
            top_p: 0.9.into(),
            seed: u64::MAX,
            frequency_penalty: 0.5.into(),
            presence_penalty: 0.0.into(),
            logit_bias: vec![(3, (-1.5).into())],
            grammar: Some(GrammarSpec::JsonSchema("{}".to_string())),
        },
        max_tokens: 9,
        stop_tokens: vec![2],
        stop_texts: vec!["END".to_string()],
        readings: vec![TokenReading {
            token: 7,
            bytes: b"<think>".to_vec(),
            is_hidden: false,
        }],
        logprobs: Some(1),
        prompt_logprobs: Some(0),
    }
}

/// What the one stage claims of it.
fn claim(spec: &GenerationSpec) -> StageClaim {
    StageClaim {
        deployment: deployment().id(),
        spec: spec.digest(),
        arithmetic: 1,
        layers: Layers::new(0, 2),
        positions: 4,
        input: tokens_digest(&[1, 2, 3, 5]),
        output: Digest::of(Domain::Row, b"rows"),
        drawn: Some(ClaimedDraws {
            earlier: 0,
            tokens: Digest::of(Domain::Drawn, b"drawn"),
            scored: Some(Digest::of(Domain::Drawn, b"scored")),
        }),
        device: "cpu".to_string(),
    }
}

#[tokio::test]
async fn one_choice_has_a_receipt_and_several_a_list() {
    let stand = Stand::saying("x").await;
    let id = format!("chatcmpl-{}", "1".repeat(32));
    let path = format!("/v1/receipts/{id}");
    let missing = stand.get(&path).await;
    missing.refused(404, None, Some("receipt_not_found"));
    let one = receipt(&format!("{id}-0"));
    stand
        .engine
        .receipts
        .lock()
        .expect("no panic")
        .push(one.clone());
    let reply = stand.get(&path).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        receipt_file::from_json(&reply.text).expect("a right receipt"),
        one
    );
    stand
        .engine
        .receipts
        .lock()
        .expect("no panic")
        .push(receipt(&format!("{id}-1")));
    let list = stand.get(&path).await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][1]["id"], format!("{id}-1"));
    let second = list["data"][1].to_string();
    assert_eq!(
        receipt_file::from_json(&second).expect("right"),
        receipt(&format!("{id}-1"))
    );
    stand
        .get(&format!("/v1/receipts/{BROKEN_RECEIPT}"))
        .await
        .refused(500, None, None);
    let one = stand.get(&format!("{path}-1")).await;
    assert_eq!(one.status, 200);
    let (short, more) = (&id[..id.len() - 1], format!("{id}-x"));
    let long = "a".repeat(200);
    for id in [
        "chatcmpl",
        "cmpl",
        "chatcmpl-",
        short,
        &more,
        "other",
        "a%20b",
        "..%2Fkeys",
        &long,
    ] {
        let reply = stand.get(&format!("/v1/receipts/{id}")).await;
        reply.refused(404, None, Some("receipt_not_found"));
    }
}

/// A receipt is given to the key that asked, and to admins; for all others it is not found. That
/// holds after a restart, too.
#[tokio::test]
async fn a_receipt_is_for_the_key_that_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let [ann, bob, host] = ["ann", "bob", "host"].map(|name| new_key(name).expect("a key"));
    let lines = format!("{}\n{}\n{} admin\n", ann.1, bob.1, host.1);
    std::fs::write(&path, lines).expect("written");
    let options = GatewayOptions {
        keys: Some(path),
        ..options()
    };
    let stand = Stand::with(options.clone(), Script::text("x"), None).await;
    let mut ids = Vec::new();
    for (path, body) in [
        ("/v1/chat/completions", chat_body(json!({}))),
        ("/v1/completions", json!({"prompt": "a", "n": 2})),
        ("/v1/chat/completions", chat_body(json!({"stream": true}))),
    ] {
        let reply = post(stand.addr, path, Some(&ann.0), &body).await;
        ids.push(reply.header("x-request-id").to_string());
    }
    let later = Stand::with(options, Script::text("x"), None).await;
    for (stand, id) in [&stand, &later]
        .into_iter()
        .flat_map(|s| ids.iter().map(move |id| (s, id)))
    {
        // The script gives it under every name.
        *stand.engine.receipts.lock().expect("no panic") = vec![receipt(&format!("{id}-0"))];
        for path in [format!("/v1/receipts/{id}"), format!("/v1/receipts/{id}-0")] {
            for key in [&ann.0, &host.0] {
                assert_eq!(
                    get(stand.addr, &path, Some(key)).await.status,
                    200,
                    "{path}"
                );
            }
            let other = get(stand.addr, &path, Some(&bob.0)).await;
            let message = other.refused(404, None, Some("receipt_not_found"));
            assert!(message.contains("There is no receipt"), "{message}");
            assert_eq!(get(stand.addr, &path, None).await.status, 401);
        }
        // A name that was never given is nobody's.
        let (kind, digits) = id.split_once('-').expect("a name");
        let last = if digits.ends_with('0') { "1" } else { "0" };
        let near = format!("/v1/receipts/{kind}-{}{last}", &digits[..31]);
        let reply = get(stand.addr, &near, Some(&ann.0)).await;
        reply.refused(404, None, Some("receipt_not_found"));
    }
}

#[test]
fn people_can_read_it() {
    let value = receipt_file::to_json(&receipt("a-0")).expect("a receipt");
    assert_eq!(value["format"], "concord.receipt.v2");
    assert_eq!(value["model"], "tuned");
    assert_eq!(value["answer"], json!([5, 2]));
    assert_eq!(value["finish"], "stop_token");
    assert_eq!(value["batch"]["index"], 1);
    assert_eq!(value["batch"]["count"], 2);
    assert_eq!(value["batch"]["path"].as_array().expect("a list").len(), 1);
    assert_eq!(value["spec"]["stop_texts"], json!(["END"]));
    assert_eq!(value["spec"]["readings"][0]["text"], "<think>");
    let first = json!({"token": 5, "logprob": -0.25, "top": [[9, -0.5]]});
    assert_eq!(value["logprobs"]["answer"][0], first);
    assert_eq!(value["spec"]["sampling"]["temperature"], 0.7);
    assert_eq!(value["spec"]["sampling"]["seed"], u64::MAX);
    assert_eq!(
        value["spec"]["sampling"]["grammar"],
        json!({"json_schema": "{}"})
    );
    assert_eq!(value["stages"][0]["layers"], json!([0, 2]));
    assert_eq!(value["stages"][0]["device"], "cpu");
    let precision = json!({"weights": 8, "activations": 8});
    assert_eq!(value["deployment"]["precision"], precision);
    // Keys and values of their own bits are named.
    let key = Keypair::from_secret([7; 32]);
    let signed = receipt_file::from_json(&value.to_string()).unwrap();
    let mut receipt = signed.open().unwrap();
    receipt.deployment.precision.key_values = 16;
    let value = receipt_file::to_json(&BatchedReceipt::alone(&key, &receipt)).unwrap();
    assert_eq!(value["deployment"]["precision"]["key_values"], 16);
    receipt_file::from_json(&value.to_string()).unwrap();
}

/// Every place of a JSON value, as a pointer.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                places(inner, &format!("{at}/{name}"), all);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                places(inner, &format!("{at}/{index}"), all);
            }
        }
        _ => all.push(at.to_string()),
    }
}

#[test]
fn whatever_is_altered_is_noticed() {
    let original = receipt_file::to_json(&receipt("a-0")).expect("a receipt");
    let mut all = Vec::new();
    places(&original, "", &mut all);
    assert!(all.len() > 30, "{all:?}");
    for place in &all {
        let mut altered = original.clone();
        let value = altered.pointer_mut(place).expect("it is there");
        *value = match value {
            Value::String(text) if place == "/signed" => json!(text.replacen("1", "2", 1)),
            Value::String(text) => json!(format!("{text}x")),
            Value::Number(_) => json!(123_456),
            Value::Bool(is_true) => json!(!*is_true),
            other => panic!("{other}"),
        };
        let error = receipt_file::from_json(&altered.to_string());
        assert!(error.is_err(), "{place}");
        if place == "/answer/0" {
            assert!(matches!(error, Err(ReceiptError::Contradiction(name)) if name == "answer"));
        }
    }
    for name in original.as_object().expect("an object").keys() {
        let mut lacking = original.clone();
        lacking.as_object_mut().expect("an object").remove(name);
        assert!(
            receipt_file::from_json(&lacking.to_string()).is_err(),
            "{name}"
        );
    }
    let mut more = original.clone();
    more["note"] = json!("all is well");
    assert!(receipt_file::from_json(&more.to_string()).is_err());
    for text in [
        "",
        "[]",
        "{}",
        "{\"format\":\"concord.receipt.v2\",\"signed\":\"00\"}",
    ] {
        assert!(receipt_file::from_json(text).is_err());
    }
}

#[test]
fn a_receipt_under_a_forged_signature_is_none() {
    let mut forged = receipt("a-0");
    forged.batch.signature[0] ^= 1;
    let error = receipt_file::to_json(&forged);
    assert!(matches!(error, Err(ReceiptError::Signed(_))));
    let nonsense = BatchedReceipt::sign(&Keypair::from_secret([2; 32]), vec![vec![7]]);
    assert!(receipt_file::to_json(&nonsense[0]).is_err());
}
