//! `/v1/chat/completions` and `/v1/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use concord_proto::Digest;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::gateway::Gateway;
use crate::keys::{Account, now};
use crate::prepare::{self, Prepared};
use crate::request::Way;
use crate::request_body;
use crate::response::{self, ChatForm, CompletionForm, Form};

/// `/v1/chat/completions`
pub(crate) async fn chat(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<Account>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (answer, prepared) = begin(&gateway, &account, request, "messages", prepare::chat).await?;
    let tokenizer = gateway.served.tokenizer.clone();
    let choices = prepared.choices;
    let form = ChatForm::new(prepared.head, tokenizer, prepared.wants_logprobs, choices);
    respond(&gateway, answer, form, prepared.way).await
}

/// `/v1/completions`
pub(crate) async fn completion(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<Account>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (answer, prepared) =
        begin(&gateway, &account, request, "prompt", prepare::completion).await?;
    let form = CompletionForm::new(
        prepared.head,
        gateway.served.tokenizer.clone(),
        prepared.wants_logprobs,
        answer.len(),
        prepared.choices,
        &prepared.echoes,
    );
    respond(&gateway, answer, form, prepared.way).await
}

async fn respond<F: Form>(
    gateway: &Gateway,
    answer: Answer,
    form: F,
    way: Way,
) -> Result<Response, ApiError> {
    match way {
        Way::Whole => response::whole(answer, form).await,
        Way::Stream { include_usage } => {
            let limits = &gateway.options.limits;
            Ok(response::stream(answer, form, include_usage, limits))
        }
    }
}

/// Reads a request and hands it to the engine.
async fn begin(
    gateway: &Arc<Gateway>,
    account: &Arc<Account>,
    request: Request,
    field: &str,
    prepare: fn(&Gateway, &[u8], Digest) -> Result<Prepared, ApiError>,
) -> Result<(Answer, Prepared), ApiError> {
    let permit = account.admit(now())?;
    let body = request_body::read(request, &gateway.options.limits).await?;
    let owner = account.owner();
    let work = move |gateway: &Gateway| prepare(gateway, &body, owner);
    let mut prepared = gateway.read(work).await?;
    let planned = std::mem::take(&mut prepared.planned);
    let choices = prepared.choices;
    let answer = Answer::begin(gateway.clone(), planned, choices, field, permit)?;
    Ok((answer, prepared))
}
