//! `/v1/receipts/{id}`

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::code::Code;
use crate::gateway::Gateway;
use crate::ids;
use crate::keys::KeyAccount;
use crate::receipt_file;

/// Most bytes of a name that an error repeats.
const NAME_MAX: usize = 128;

/// A receipt is written a moment after its answer has ended, so a request looks for it up to so
/// many times.
const LOOKS: u32 = 20;
/// The time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// `/v1/receipts/{id}`, for the key that asked for the answer, and for admins: the receipt of an
/// answer with one choice, or a list with the receipts of all choices. `{id}-{index}` gives that of
/// one choice.
pub(crate) async fn receipts(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<KeyAccount>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let missing = || {
        let id: String = id.chars().take(NAME_MAX).collect();
        let message = format!(
            "There is no receipt '{id}'. It is written a moment after the answer has ended, and \
             kept for a while."
        );
        ApiError::not_found(message).code(Code::ReceiptNotFound)
    };
    // A receipt of another key is reported as not found.
    let is_own = || account.line.admin || ids::is_of(&id, &account.owner());
    if !(ids::is_answer(&id) && is_own()) {
        return Err(missing());
    }
    let mut signed = Vec::new();
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK).await;
        }
        let found = gateway.engine.receipts(id.clone()).await;
        signed = found.map_err(ApiError::server)?;
        if !signed.is_empty() {
            break;
        }
    }
    let read: Result<Vec<Value>, _> = signed.iter().map(receipt_file::to_json).collect();
    let mut all = read.map_err(|error| ApiError::server(error.to_string()))?;
    match all.len() {
        0 => Err(missing()),
        1 => Ok(Json(all.remove(0))),
        _ => Ok(Json(json!({"object": "list", "data": all}))),
    }
}
