//! `/v1/chat/completions` and `/v1/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::following::Following;
use crate::gateway::Gateway;
use crate::keys::{KeyAccount, Permit, now};
use crate::prepare::{self, Prepared};
use crate::request::Way;
use crate::request_body;
use crate::response::{self, ChatForm, CompletionForm, Form};
use crate::visit::Visit;

/// `/v1/chat/completions`
pub(crate) async fn chat(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<KeyAccount>>,
    Extension(visit): Extension<Arc<Visit>>,
    request: Request,
) -> Result<Response, ApiError> {
    let begun = begin(
        &gateway,
        &account,
        &visit,
        request,
        "messages",
        prepare::chat,
    );
    let (answer, prepared) = begun.await?;
    let form = ChatForm::new(
        prepared.head,
        gateway.served.tokenizer.clone(),
        prepared.wants_logprobs,
        prepared.choices,
    );
    let following = Following::new(&gateway, &account, visit);
    let mut response = respond(&gateway, answer, form, prepared.way, following).await?;
    prepared.ignored.tell(&mut response);
    Ok(response)
}

/// `/v1/completions`
pub(crate) async fn completion(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<KeyAccount>>,
    Extension(visit): Extension<Arc<Visit>>,
    request: Request,
) -> Result<Response, ApiError> {
    let begun = begin(
        &gateway,
        &account,
        &visit,
        request,
        "prompt",
        prepare::completion,
    );
    let (answer, prepared) = begun.await?;
    let form = CompletionForm::new(
        prepared.head,
        gateway.served.tokenizer.clone(),
        prepared.wants_logprobs,
        answer.len(),
        prepared.choices,
        &prepared.echoes,
    );
    let following = Following::new(&gateway, &account, visit);
    let mut response = respond(&gateway, answer, form, prepared.way, following).await?;
    prepared.ignored.tell(&mut response);
    Ok(response)
}

async fn respond<F: Form>(
    gateway: &Gateway,
    answer: Answer,
    form: F,
    way: Way,
    following: Following,
) -> Result<Response, ApiError> {
    match way {
        Way::Whole => response::whole(answer, form, following).await,
        Way::Stream { include_usage } => {
            let limits = &gateway.options.limits;
            Ok(response::stream(
                answer,
                form,
                include_usage,
                following,
                limits,
            ))
        }
    }
}

/// Reads a request and submits it to the engine.
async fn begin(
    gateway: &Arc<Gateway>,
    account: &Arc<KeyAccount>,
    visit: &Arc<Visit>,
    request: Request,
    field: &str,
    prepare: fn(&Gateway, &[u8], &Permit) -> Result<Prepared, ApiError>,
) -> Result<(Answer, Prepared), ApiError> {
    let permit = account.admit(now())?.noted_in(visit.clone());
    let body = request_body::read(gateway, account, request).await?;
    let length = body.bytes.len();
    // The permit lasts until the work is done, even if the client leaves before.
    let work = move |gateway: &Gateway| {
        let prepared = prepare(gateway, &body.bytes, &permit)?;
        // Written before the engine draws any token, so that a kill of this process loses no
        // count.
        if permit.account().line.tokens_per_day.is_some() {
            gateway.write_usage();
        }
        Ok((prepared, permit))
    };
    let (mut prepared, permit) = gateway.read(account, length, work).await?;
    let planned = std::mem::take(&mut prepared.planned);
    let choices = prepared.choices;
    let answer = Answer::begin(gateway.clone(), planned, choices, field, permit)?;
    Ok((answer, prepared))
}
