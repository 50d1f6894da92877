//! Receipts as JSON, for people and for `concord verify`.
//!
//! Only the signed bytes count. The readable fields are derived from them, and a file whose fields
//! contradict the signed bytes is refused.

use concord_proto::canonical;
use concord_proto::merkle::MerklePath;
use concord_proto::serving::{
    BatchedReceipt, BatchedReceiptError, Finish, GenerationSpec, GrammarSpec, SamplingSpec,
    ServedPrecision, StageClaim, TokenLogprob, TokenReading,
};
use concord_proto::{F32Bits, Signed};
use serde_json::{Map, Value, json};

use crate::hex;
use crate::pool::ends;

/// The name and version of the format.
pub const FORMAT: &str = "concord.receipt.v2";

/// Why a receipt was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Not JSON.
    #[error("the receipt is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not a receipt.
    #[error("this is no receipt of the format {FORMAT}: {0}")]
    Format(String),
    /// The signature does not hold, or the receipt is not in the batch under it.
    #[error(transparent)]
    Signed(#[from] BatchedReceiptError),
    /// A readable field contradicts the signed bytes.
    #[error(
        "the receipt says '{0}' otherwise than its signed part does: it was altered; fetch it again"
    )]
    Contradiction(String),
}

/// The receipt as JSON.
///
/// # Errors
/// [`ReceiptError::Signed`] for a receipt that nobody has signed.
pub fn to_json(signed: &BatchedReceipt) -> Result<Value, ReceiptError> {
    let mut fields = readable(signed)?;
    let bytes = canonical::encode(signed);
    fields.insert("signed".to_string(), Value::String(hex::encode(&bytes)));
    Ok(Value::Object(fields))
}

/// Reads the signed receipt from JSON that [`to_json`] made.
///
/// # Errors
/// [`ReceiptError`], also where the readable part contradicts the signed one.
pub fn from_json(text: &str) -> Result<BatchedReceipt, ReceiptError> {
    let mut given = match serde_json::from_str(text)? {
        Value::Object(fields) => fields,
        _ => return Err(ReceiptError::Format("it is no object".to_string())),
    };
    if given.get("format").and_then(Value::as_str) != Some(FORMAT) {
        let reason = "its 'format' is another one, or missing";
        return Err(ReceiptError::Format(reason.to_string()));
    }
    let refuse = |reason: &str| ReceiptError::Format(format!("'signed' {reason}"));
    let bytes = given.remove("signed").ok_or(refuse("is missing"))?;
    let bytes = bytes.as_str().ok_or(refuse("is no text"))?;
    let bytes = hex::decode(bytes).ok_or(refuse("is not hexadecimal"))?;
    let signed: BatchedReceipt =
        canonical::decode(&bytes).map_err(|why| refuse(&format!("cannot be read: {why}")))?;
    let expected = readable(&signed)?;
    let names = expected.keys().chain(given.keys());
    match names
        .into_iter()
        .find(|name| expected.get(*name) != given.get(*name))
    {
        Some(name) => Err(ReceiptError::Contradiction(name.clone())),
        None => Ok(signed),
    }
}

/// Why an answer ended, as it stands in a receipt.
pub fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::StopToken => "stop_token",
        Finish::StopText => "stop_text",
        Finish::Grammar => "grammar",
        Finish::Length => "length",
        Finish::Cancelled => "cancelled",
    }
}

fn readable(signed: &BatchedReceipt) -> Result<Map<String, Value>, ReceiptError> {
    let receipt = signed.open()?;
    let deployment = &receipt.deployment;
    let spec = &receipt.spec;
    let value = json!({
        "format": FORMAT,
        "id": receipt.id,
        "model": receipt.model,
        "issued": receipt.issued,
        "signer": signed.signer().to_string(),
        "batch": batch(&signed.path),
        "deployment": {
            "id": deployment.id().0.to_string(),
            "arithmetic": deployment.arithmetic,
            "model": deployment.model.to_string(),
            "tokenizer": deployment.tokenizer.to_string(),
            "layers": deployment.layers,
            "vocab": deployment.vocab,
            "positions": deployment.positions,
            "precision": precision(deployment.precision),
        },
        "spec": of_spec(spec),
        "answer": receipt.answer,
        "logprobs": {
            "prompt": logprobs(&receipt.logprobs.prompt, spec.prompt_logprobs),
            "answer": logprobs(&receipt.logprobs.answer, spec.logprobs),
        },
        "finish": finish(receipt.finish),
        "usage": {
            "prompt": receipt.usage.prompt,
            "cached": receipt.usage.cached,
            "answer": receipt.usage.answer,
        },
        "body": receipt.body.to_string(),
        "text": receipt.text.to_string(),
        "stages": receipt.claims.iter().map(stage).collect::<Vec<_>>(),
    });
    match value {
        Value::Object(fields) => Ok(fields),
        _ => unreachable!("an object was written"),
    }
}

/// The place of a receipt among those that were signed with it.
fn batch(path: &MerklePath) -> Value {
    let siblings = path.siblings.iter().map(ToString::to_string);
    json!({
        "index": path.index,
        "count": path.count,
        "path": siblings.collect::<Vec<_>>(),
    })
}

fn of_spec(spec: &GenerationSpec) -> Value {
    json!({
        "digest": spec.digest().to_string(),
        "deployment": spec.deployment.0.to_string(),
        "adapter": spec.adapter.map(|adapter| adapter.to_string()),
        "prompt": spec.prompt,
        "sampling": sampling(&spec.sampling),
        "max_tokens": spec.max_tokens,
        "stop_tokens": spec.stop_tokens,
        "stop_texts": spec.stop_texts,
        "readings": spec.readings.iter().map(reading).collect::<Vec<_>>(),
        "logprobs": spec.logprobs,
        "prompt_logprobs": spec.prompt_logprobs,
    })
}

/// A token that is read otherwise than `tokenizer.json` has it.
fn reading(reading: &TokenReading) -> Value {
    json!({
        "token": reading.token,
        "text": String::from_utf8_lossy(&reading.bytes),
        "hidden": reading.is_hidden,
    })
}

/// The logprobs that were given, as they were computed: a client's may be cut off at 0. Null where
/// nobody asked.
fn logprobs(given: &[TokenLogprob], asked: Option<u8>) -> Value {
    let one = |token: &TokenLogprob| {
        let top = token.top.iter();
        let top = top.map(|(id, logprob)| json!([id, number(*logprob)]));
        json!({
            "token": token.token,
            "logprob": number(token.logprob),
            "top": top.collect::<Vec<_>>(),
        })
    };
    asked.map_or(Value::Null, |_| given.iter().map(one).collect())
}

/// Keys and values are named where their bits are others than those of activations.
fn precision(precision: ServedPrecision) -> Value {
    let ServedPrecision {
        weights,
        activations,
        key_values,
    } = precision;
    if key_values == activations {
        return json!({"weights": weights, "activations": activations});
    }
    json!({"weights": weights, "activations": activations, "key_values": key_values})
}

fn sampling(sampling: &SamplingSpec) -> Value {
    let bias = sampling.logit_bias.iter();
    let bias = bias.map(|(token, bias)| json!([token, number(*bias)]));
    json!({
        "temperature": number(sampling.temperature),
        "top_k": sampling.top_k,
        "top_p": number(sampling.top_p),
        "seed": sampling.seed,
        "frequency_penalty": number(sampling.frequency_penalty),
        "presence_penalty": number(sampling.presence_penalty),
        "logit_bias": bias.collect::<Vec<_>>(),
        "grammar": match &sampling.grammar {
            None => Value::Null,
            Some(GrammarSpec::JsonObject) => json!("json_object"),
            Some(GrammarSpec::JsonSchema(schema)) => json!({"json_schema": schema}),
            Some(GrammarSpec::Lark(lark)) => json!({"lark": lark}),
        },
    })
}

/// A claim, readable. One that cannot be opened is shown as such; only the judge decides what that
/// means.
fn stage(claim: &Signed) -> Value {
    let worker = claim.signer.to_string();
    match claim.open::<StageClaim>() {
        Ok(claim) => json!({
            "worker": worker,
            "device": claim.device,
            "layers": ends(claim.layers),
            "positions": claim.positions,
            "input": claim.input.to_string(),
            "output": claim.output.to_string(),
        }),
        Err(error) => json!({"worker": worker, "error": error.to_string()}),
    }
}

/// The shortest decimal that rounds to this `f32`: 0.7, not 0.699999988.
fn number(bits: F32Bits) -> Value {
    let decimal: Option<f64> = bits.get().to_string().parse().ok();
    decimal.map_or(Value::Null, Value::from)
}
