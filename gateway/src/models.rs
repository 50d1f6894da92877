//! `/v1/models`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::gateway::Gateway;

/// `/v1/models`: the model, then its adapters.
pub(crate) async fn list(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    let names = gateway.models();
    let data: Vec<Value> = names.iter().map(|name| model(&gateway, name)).collect();
    Json(json!({"object": "list", "data": data}))
}

/// `/v1/models/{id}`
pub(crate) async fn one(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (name, _) = gateway.model(Some(&id))?;
    Ok(Json(model(&gateway, &name)))
}

fn model(gateway: &Gateway, name: &str) -> Value {
    let served = &gateway.served;
    let parent = (name != served.name).then_some(&served.name);
    json!({
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": "concord",
        "root": name,
        "parent": parent,
        "max_model_len": served.deployment.positions,
    })
}
