//! `/v1/embeddings`, which is refused with the reason.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;

use crate::api_error::ApiError;
use crate::code::Code;
use crate::fields::EMBEDDINGS;
use crate::gateway::Gateway;
use crate::json::{self, Fields, wrong};
use crate::keys::{KeyAccount, now};
use crate::request_body;

/// `/v1/embeddings`
pub(crate) async fn embeddings(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<KeyAccount>>,
    request: Request,
) -> Result<Response, ApiError> {
    let permit = account.admit(now())?;
    let body = request_body::read(&gateway, &account, request).await?;
    let length = body.bytes.len();
    let work = move |gateway: &Gateway| {
        let _permit = permit;
        let value = json::parse(&body.bytes, gateway.options.limits.json_depth)?;
        let mut fields = Fields::new(value, "", EMBEDDINGS)?;
        let name = fields.text("model")?;
        let (name, _) = gateway.model(name.as_deref())?;
        let input = fields.take("input");
        let input = input.ok_or_else(|| fields.missing("input"))?;
        Err(refusal(&name, &input))
    };
    gateway.read(&account, length, work).await
}

fn refusal(name: &str, input: &Value) -> ApiError {
    let has_ids = match input {
        Value::String(_) => false,
        Value::Array(list) if list.iter().all(Value::is_string) => false,
        Value::Array(list) if list.iter().all(|item| item.is_number() || item.is_array()) => true,
        other => {
            let expected = "a string, or an array of strings or of token ids";
            return wrong("input", expected, other);
        }
    };
    let refusal = format!(
        "The model '{name}' writes text and was not trained for embeddings: what its layers hold \
         would be a bad one. Use a server with an embedding model."
    );
    if !has_ids {
        return ApiError::param("model", refusal).code(Code::UnsupportedModel);
    }
    let message = format!(
        "{refusal} Besides, 'input' holds token ids, which no other model's tokenizer should be \
         asked about: with LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False."
    );
    ApiError::param("input", message).code(Code::UnsupportedModel)
}
