//! The fields of sampling.

use std::collections::BTreeMap;

use concord_proto::F32Bits;
use concord_proto::serving::SamplingSpec;
use serde_json::Value;

use crate::api_error::ApiError;
use crate::json::{Fields, wrong};
use crate::options::SamplingDefaults;

/// Most entries of `logit_bias`.
const BIAS_MAX: usize = 1_024;

/// The least temperature above 0, as in vLLM: below it, logits divided by the temperature become
/// too large for the kernels to tell apart.
const TEMPERATURE_MIN: f32 = 0.01;

/// Takes the fields of sampling, except the seed.
///
/// # Errors
/// A 400 that names the field.
pub(super) fn sampling(
    fields: &mut Fields,
    defaults: &SamplingDefaults,
    vocab: u32,
    seed: u64,
) -> Result<SamplingSpec, ApiError> {
    let temperature = fields.number("temperature")?;
    let top_p = fields.number("top_p")?;
    // In vLLM -1 keeps all tokens.
    let top_k = fields.integer("top_k")?;
    let frequency_penalty = fields.number("frequency_penalty")?;
    let presence_penalty = fields.number("presence_penalty")?;
    let or = |given: Option<f64>, default: f32| F32Bits::from(given.map_or(default, narrow));
    Ok(SamplingSpec {
        temperature: warm(temperature.unwrap_or(f64::from(defaults.temperature))).into(),
        top_k: top_k.map_or(defaults.top_k, |top_k| top_k.max(0) as u32),
        top_p: or(top_p, defaults.top_p),
        seed,
        frequency_penalty: or(frequency_penalty, 0.0),
        presence_penalty: or(presence_penalty, 0.0),
        logit_bias: logit_bias(fields, vocab)?,
        grammar: None,
    })
}

/// Raises a temperature to the least one; 0 stays 0, which is greedy.
fn warm(temperature: f64) -> f32 {
    match temperature > 0.0 {
        true => narrow(temperature).max(TEMPERATURE_MIN),
        false => narrow(temperature),
    }
}

/// The nearest `f32`, with -0 as +0.
fn narrow(number: f64) -> f32 {
    number as f32 + 0.0
}

/// The seed that a request gives.
///
/// # Errors
/// A 400 where it is no seed.
pub(super) fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.take("seed") else {
        return Ok(None);
    };
    // Negative numbers are seeds, too.
    let signed = value.as_i64().map(|seed| seed as u64);
    let seed = value.as_u64().or(signed);
    let seed = seed.ok_or_else(|| wrong("seed", "an integer of 64 bits", &value))?;
    Ok(Some(seed))
}

fn logit_bias(fields: &mut Fields, vocab: u32) -> Result<Vec<(u32, F32Bits)>, ApiError> {
    let map = fields.map("logit_bias")?.unwrap_or_default();
    if map.len() > BIAS_MAX {
        let message = format!(
            "'logit_bias' has {} entries: at most {BIAS_MAX}.",
            map.len()
        );
        return Err(ApiError::param("logit_bias", message));
    }
    let mut all = BTreeMap::new();
    for (name, value) in &map {
        let shown: String = name.chars().take(40).collect();
        let path = format!("logit_bias.{shown}");
        let token = name.parse().ok().filter(|token: &u32| *token < vocab);
        let Some(token) = token else {
            let message = format!(
                "'{path}' is not for a token: 0 to {} are.",
                vocab.saturating_sub(1)
            );
            return Err(ApiError::param(path, message));
        };
        let Value::Number(number) = value else {
            return Err(wrong(&path, "a number", value));
        };
        let bias = number.as_f64().unwrap_or(f64::INFINITY);
        if !(-100.0..=100.0).contains(&bias) {
            let message = format!("'{path}' has to be within -100 and 100, and is {number}.");
            return Err(ApiError::param(path, message));
        }
        all.insert(token, F32Bits::from(narrow(bias)));
    }
    Ok(all.into_iter().collect())
}
