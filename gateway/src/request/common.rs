//! The fields that chats and completions have in common.

use concord_proto::Digest;
use concord_proto::limits::STOP_TEXT_BYTES_MAX;
use concord_proto::serving::SamplingSpec;
use serde_json::Value;

use super::sampling::{sampling, seed};
use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::ids;
use crate::ignored::Ignored;
use crate::json::{Fields, wrong};

/// The fields that chats and completions have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// The name of the model or adapter, for the response.
    pub model: String,
    pub adapter: Option<Digest>,
    /// Choices for each prompt.
    pub n: u32,
    /// How tokens are drawn, without the grammar.
    pub sampling: SamplingSpec,
    /// Whether the request gave the seed.
    pub is_seeded: bool,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    pub way: Way,
}

/// How a response is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Whole,
    Stream {
        /// Whether a last chunk has the usage.
        include_usage: bool,
    },
}

impl Common {
    /// Takes the common fields.
    ///
    /// # Errors
    /// A 400 that names the field, or a 404 for the model.
    pub fn take(
        fields: &mut Fields,
        gateway: &Gateway,
        ignored: &mut Ignored,
    ) -> Result<Self, ApiError> {
        let name = fields.text("model")?;
        let (model, adapter) = gateway.model(name.as_deref())?;
        let limits = &gateway.options.limits;
        let n = fields.count("n", limits)?.unwrap_or(1);
        if let Some(best_of) = fields.integer("best_of")?
            && best_of != i64::from(n)
        {
            let message = "'best_of' is not supported here, except as the same as 'n'.";
            return Err(ApiError::param("best_of", message));
        }
        let vocab = gateway.served.deployment.vocab;
        let given = seed(fields)?;
        let drawn = given.map_or_else(ids::seed, Ok)?;
        let sampling = sampling(fields, &gateway.served.defaults, vocab, drawn)?;
        let stops = stops(fields, limits.stops)?;
        let stop_tokens = stop_tokens(fields, &stops, gateway)?;
        let way = way(fields, ignored)?;
        without_effect(fields, ignored)?;
        Ok(Self {
            model,
            adapter,
            n,
            sampling,
            is_seeded: given.is_some(),
            stops,
            stop_tokens,
            way,
        })
    }
}

fn stops(fields: &mut Fields, most: usize) -> Result<Vec<String>, ApiError> {
    let list = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(text @ Value::String(_)) => vec![text],
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong("stop", "a string or an array of strings", &other)),
    };
    if list.len() > most {
        let message = format!("'stop' has {} texts: at most {most}.", list.len());
        return Err(ApiError::param("stop", message));
    }
    let text = |(index, value): (usize, Value)| match value {
        Value::String(text) if (1..=STOP_TEXT_BYTES_MAX).contains(&text.len()) => Ok(text),
        Value::String(text) => {
            let path = format!("stop[{index}]");
            let length = text.len();
            let message = format!("'{path}' has {length} bytes: 1 to {STOP_TEXT_BYTES_MAX}.");
            Err(ApiError::param(path, message))
        }
        other => Err(wrong(&format!("stop[{index}]"), "a string", &other)),
    };
    list.into_iter().enumerate().map(text).collect()
}

/// The tokens that end an answer: the model's, those asked for by id, and those whose name is a
/// stop text.
fn stop_tokens(
    fields: &mut Fields,
    stops: &[String],
    gateway: &Gateway,
) -> Result<Vec<u32>, ApiError> {
    let ignore = fields.flag("ignore_eos")?.unwrap_or(false);
    let mut tokens = match ignore {
        true => Vec::new(),
        false => gateway.served.stop_tokens.clone(),
    };
    let more = fields.list("stop_token_ids")?.unwrap_or_default();
    let vocab = gateway.served.deployment.vocab;
    tokens.extend(token_list(&more, vocab, "stop_token_ids")?);
    let tokenizer = &gateway.served.tokenizer;
    let named = stops.iter().filter_map(|stop| tokenizer.token_id(stop));
    tokens.extend(named.filter(|id| *id < vocab && tokenizer.is_special(*id)));
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

/// Token ids.
///
/// # Errors
/// A 400 that names the first invalid one; `path` is the name of the list.
pub(crate) fn token_list(list: &[Value], vocab: u32, path: &str) -> Result<Vec<u32>, ApiError> {
    let id = |(index, value): (usize, &Value)| {
        let Some(id) = value.as_i64() else {
            return Err(wrong(&format!("{path}[{index}]"), "a token id", value));
        };
        let known = u32::try_from(id).ok().filter(|id| *id < vocab);
        known.ok_or_else(|| {
            let path = format!("{path}[{index}]");
            let last = vocab.saturating_sub(1);
            let message = format!("'{path}' is {id}: this model has tokens 0 to {last}.");
            ApiError::param(path, message)
        })
    };
    list.iter().enumerate().map(id).collect()
}

fn way(fields: &mut Fields, ignored: &mut Ignored) -> Result<Way, ApiError> {
    let stream = fields.flag("stream")?.unwrap_or(false);
    let Some(mut options) = fields.object("stream_options")? else {
        return Ok(match stream {
            true => Way::Stream {
                include_usage: false,
            },
            false => Way::Whole,
        });
    };
    if !stream {
        let message = "'stream_options' is only for 'stream': true.";
        return Err(ApiError::param("stream_options", message));
    }
    let include_usage = options.flag("include_usage")?.unwrap_or(false);
    options.finish_within(ignored)?;
    Ok(Way::Stream { include_usage })
}

/// Service tiers of OpenAI. They change no answer, and all are served alike.
const TIERS: [&str; 5] = ["auto", "default", "flex", "scale", "priority"];

/// Takes fields that ask for something this server does not do but that change no answer.
fn without_effect(fields: &mut Fields, ignored: &mut Ignored) -> Result<(), ApiError> {
    // A client that asks to have its answers stored is told that they are not.
    if fields.flag("store")?.unwrap_or(false) {
        ignored.add("store");
    }
    if let Some(tier) = fields.text("service_tier")? {
        match TIERS.iter().position(|known| *known == tier) {
            Some(0 | 1) => {}
            Some(_) => ignored.add("service_tier"),
            None => {
                let message = format!("'service_tier' has to be one of {}.", TIERS.join(", "));
                return Err(ApiError::param("service_tier", message));
            }
        }
    }
    Ok(())
}
