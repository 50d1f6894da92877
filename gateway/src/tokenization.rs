//! `/tokenize` and `/detokenize`, in vLLM's shapes.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::fields::DETOKENIZE;
use crate::gateway::Gateway;
use crate::ignored::Ignored;
use crate::json::{self, Fields};
use crate::keys::{KeyAccount, now};
use crate::prepare;
use crate::request::{TokenizeRequest, token_list};
use crate::request_body;

/// `/tokenize`
pub(crate) async fn tokenize(
    gateway: State<Arc<Gateway>>,
    account: Extension<Arc<KeyAccount>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(gateway, account, request, |gateway, body, ignored| {
        let request = TokenizeRequest::read(body, gateway, ignored)?;
        let tokens = match &request {
            TokenizeRequest::Chat(prompt, _) => prepare::chat_prompt(gateway, prompt)?.1,
            TokenizeRequest::Text {
                text,
                add_special_tokens,
                ..
            } => {
                gateway.check_length(text, "prompt")?;
                let tokens = gateway.served.tokenizer.encode(text, *add_special_tokens);
                tokens.map_err(|error| ApiError::param("prompt", format!("{error}.")))?
            }
        };
        let names = request.wants_names().then(|| {
            let name = |token: &u32| gateway.served.tokenizer.token_text(*token);
            tokens.iter().map(name).collect::<Vec<_>>()
        });
        Ok(json!({
            "count": tokens.len(),
            "max_model_len": gateway.served.deployment.positions,
            "tokens": tokens,
            "token_strs": names,
        }))
    })
    .await
}

/// `/detokenize`
pub(crate) async fn detokenize(
    gateway: State<Arc<Gateway>>,
    account: Extension<Arc<KeyAccount>>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(gateway, account, request, |gateway, body, _| {
        let mut fields = Fields::new(body, "", DETOKENIZE)?;
        gateway.model(fields.text("model")?.as_deref())?;
        let list = fields.list("tokens")?;
        let list = list.ok_or_else(|| fields.missing("tokens"))?;
        let tokens = token_list(&list, gateway.served.deployment.vocab, "tokens")?;
        fields.finish()?;
        let text = gateway.served.tokenizer.decode(&tokens, false);
        let text = text.map_err(|error| ApiError::param("tokens", format!("{error}.")))?;
        Ok(json!({"prompt": text}))
    })
    .await
}

async fn answer(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<KeyAccount>>,
    request: Request,
    read: impl FnOnce(&Gateway, Value, &mut Ignored) -> Result<Value, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let permit = account.admit(now())?;
    let body = request_body::read(&gateway, &account, request).await?;
    let length = body.bytes.len();
    let work = move |gateway: &Gateway| {
        let value = json::parse(&body.bytes, gateway.options.limits.json_depth)?;
        let mut ignored = Ignored::default();
        let answer = read(gateway, value, &mut ignored)?;
        // The text may be long, so it is made on this thread.
        let text = answer.to_string();
        drop(permit);
        Ok((text, ignored))
    };
    let (text, ignored) = gateway.read(&account, length, work).await?;
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (kind, text).into_response();
    ignored.tell(&mut response);
    Ok(response)
}
