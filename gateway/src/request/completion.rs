//! `/v1/completions`.

use serde_json::Value;

use super::common::{Common, token_list};
use crate::api_error::ApiError;
use crate::fields::COMPLETION;
use crate::gateway::Gateway;
use crate::ignored::Ignored;
use crate::json::{Fields, wrong};

/// The default of `max_tokens`, which is OpenAI's.
const MAX_TOKENS: u32 = 16;

/// The body of a request for completions.
#[derive(Debug)]
pub(crate) struct CompletionRequest {
    pub common: Common,
    pub prompts: Vec<Prompt>,
    /// Whether the text begins with the prompt.
    pub echo: bool,
    /// 0 only with `echo`.
    pub max_tokens: u32,
    /// How many alternatives are reported with each token; `None` for no logprobs.
    pub logprobs: Option<u8>,
    /// Whether the tokenizer adds its special tokens to a text.
    pub add_special_tokens: bool,
    /// Fields that change nothing.
    pub ignored: Ignored,
}

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl CompletionRequest {
    /// Reads the body's object.
    ///
    /// # Errors
    /// A 400 that names the field, or a 404 for the model.
    pub fn read(value: Value, gateway: &Gateway) -> Result<Self, ApiError> {
        let mut fields = Fields::new(value, "", COMPLETION)?;
        let mut ignored = Ignored::default();
        let common = Common::take(&mut fields, gateway, &mut ignored)?;
        let prompts = prompts(&mut fields, gateway, common.n)?;
        let echo = fields.flag("echo")?.unwrap_or(false);
        let max_tokens = fields.integer("max_tokens")?;
        let max_tokens = max_tokens.map_or(MAX_TOKENS, |tokens| tokens as u32);
        if max_tokens == 0 && !echo {
            let message = "'max_tokens' has to be at least 1, or 'echo' true.";
            return Err(ApiError::param("max_tokens", message));
        }
        let logprobs = fields.integer("logprobs")?;
        let request = Self {
            common,
            prompts,
            echo,
            max_tokens,
            logprobs: logprobs.map(|top| top as u8),
            add_special_tokens: fields.flag("add_special_tokens")?.unwrap_or(true),
            ignored,
        };
        fields.finish()?;
        Ok(request)
    }
}

fn prompts(fields: &mut Fields, gateway: &Gateway, n: u32) -> Result<Vec<Prompt>, ApiError> {
    let vocab = gateway.served.deployment.vocab;
    let expected = "a string, or an array of strings, of token ids or of arrays of token ids";
    let prompts = match fields.take("prompt") {
        None => return Err(fields.missing("prompt")),
        Some(Value::String(text)) => vec![Prompt::Text(text)],
        Some(Value::Array(list)) => match list.first() {
            None => return Err(ApiError::param("prompt", "'prompt' is empty.")),
            Some(Value::Number(_)) => vec![Prompt::Tokens(token_list(&list, vocab, "prompt")?)],
            Some(_) => {
                let prompt = |(index, value): (usize, Value)| {
                    let path = format!("prompt[{index}]");
                    match value {
                        Value::String(text) => Ok(Prompt::Text(text)),
                        Value::Array(ids) => token_list(&ids, vocab, &path).map(Prompt::Tokens),
                        other => Err(wrong(&path, "a string or an array of token ids", &other)),
                    }
                };
                list.into_iter()
                    .enumerate()
                    .map(prompt)
                    .collect::<Result<_, _>>()?
            }
        },
        Some(other) => return Err(wrong("prompt", expected, &other)),
    };
    let most = gateway.options.limits.generations;
    if prompts.len() as u64 * u64::from(n) > u64::from(most) {
        let message = format!(
            "{} prompts times n = {n} are too many answers: at most {most} a request.",
            prompts.len()
        );
        return Err(ApiError::param("prompt", message));
    }
    Ok(prompts)
}
