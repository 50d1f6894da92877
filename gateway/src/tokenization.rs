//! `/tokenize` and `/detokenize`, in vLLM's shapes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::json::{self, Fields};
use crate::keys::{Account, now};
use crate::prepare;
use crate::request::{TokenizeRequest, token_list};
use crate::request_body;

/// `/tokenize`
pub(crate) async fn tokenize(
    gateway: State<Arc<Gateway>>,
    account: Extension<Arc<Account>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    answer(gateway, account, request, |gateway, body| {
        let request = TokenizeRequest::read(body, gateway)?;
        let tokens = match &request {
            TokenizeRequest::Chat(prompt, _) => prepare::chat_prompt(gateway, prompt)?.1,
            TokenizeRequest::Text {
                text,
                add_special_tokens,
                ..
            } => {
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
    account: Extension<Arc<Account>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    answer(gateway, account, request, |gateway, body| {
        let mut fields = Fields::new(body, "")?;
        gateway.model(fields.text("model")?.as_deref())?;
        let list = fields.list("tokens", usize::MAX)?;
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
    Extension(account): Extension<Arc<Account>>,
    request: Request,
    read: impl FnOnce(&Gateway, Value) -> Result<Value, ApiError> + Send + 'static,
) -> Result<Json<Value>, ApiError> {
    let _permit = account.admit(now())?;
    let body = request_body::read(request, &gateway.options.limits).await?;
    let work = move |gateway: &Gateway| {
        let body = json::parse(&body, gateway.options.limits.json_depth)?;
        read(gateway, body)
    };
    gateway.read(work).await.map(Json)
}
