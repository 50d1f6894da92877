//! `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`, in vLLM's shapes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};

use crate::api_error::ApiError;
use crate::code::Code;
use crate::fields::{LOAD_ADAPTER, Table, UNLOAD_ADAPTER};
use crate::gateway::Gateway;
use crate::json::{self, Fields};
use crate::keys::KeyAccount;
use crate::request_body;

/// Bytes of an adapter's name.
const NAME_MAX: usize = 128;

/// `/v1/load_lora_adapter`: `lora_path` is a folder within the folder of adapters.
pub(crate) async fn load(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<KeyAccount>>,
    request: Request,
) -> Result<String, ApiError> {
    account.check_admin()?;
    let mut fields = read(&gateway, &account, request, LOAD_ADAPTER).await?;
    let name = name(&mut fields)?;
    let path = fields.required_text("lora_path")?;
    let base = fields.text("base_model_name")?;
    fields.finish()?;
    if base.is_some_and(|base| base != gateway.served.name) {
        let message = format!("'base_model_name' has to be '{}'.", gateway.served.name);
        return Err(ApiError::param("base_model_name", message));
    }
    let Some(root) = gateway.options.adapter_dir.clone() else {
        let message = "No folder of adapters was given at the start: none can be loaded.";
        return Err(ApiError::invalid(message).code(Code::NotEnabled));
    };
    gateway.check_adapter_name(&name)?;
    let folder = within(root, PathBuf::from(path)).await?;
    let refuse = |reason| ApiError::param("lora_path", format!("{reason}."));
    let digest = gateway.engine.add_adapter(folder).await.map_err(refuse)?;
    if let Err(error) = gateway.add_adapter(&name, digest) {
        // Another request took the name meanwhile, perhaps for the same adapter.
        if !gateway.serves(&digest) {
            let removed = gateway.engine.remove_adapter(digest).await;
            removed.map_err(ApiError::server)?;
        }
        return Err(error);
    }
    Ok(format!(
        "Success: LoRA adapter '{name}' added successfully."
    ))
}

/// `/v1/unload_lora_adapter`
pub(crate) async fn unload(
    State(gateway): State<Arc<Gateway>>,
    Extension(account): Extension<Arc<KeyAccount>>,
    request: Request,
) -> Result<String, ApiError> {
    account.check_admin()?;
    let mut fields = read(&gateway, &account, request, UNLOAD_ADAPTER).await?;
    let name = name(&mut fields)?;
    fields.finish()?;
    let Some(digest) = gateway.remove_adapter(&name) else {
        let message = format!("No adapter '{name}' is loaded.");
        let error = ApiError::not_found(message).code(Code::ModelNotFound);
        return Err(ApiError {
            param: Some("lora_name".to_string()),
            ..error
        });
    };
    if !gateway.serves(&digest) {
        let removed = gateway.engine.remove_adapter(digest).await;
        removed.map_err(ApiError::server)?;
    }
    Ok(format!(
        "Success: LoRA adapter '{name}' removed successfully."
    ))
}

async fn read(
    gateway: &Arc<Gateway>,
    account: &KeyAccount,
    request: Request,
    table: Table,
) -> Result<Fields, ApiError> {
    let body = request_body::read(gateway, account, request).await?;
    let length = body.bytes.len();
    let work = move |gateway: &Gateway| {
        let value = json::parse(&body.bytes, gateway.options.limits.json_depth)?;
        Fields::new(value, "", table)
    };
    gateway.read(account, length, work).await
}

fn name(fields: &mut Fields) -> Result<String, ApiError> {
    let name = fields.required_text("lora_name")?;
    let is_plain = |letter: char| !letter.is_control() && !letter.is_whitespace();
    if (1..=NAME_MAX).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(name);
    }
    let message = format!("'lora_name' has to be 1 to {NAME_MAX} bytes without spaces.");
    Err(ApiError::param("lora_name", message))
}

/// The real path of the folder `path`, if it is within `root` after links are resolved.
async fn within(root: PathBuf, path: PathBuf) -> Result<PathBuf, ApiError> {
    // The same error for every cause, so that a client learns nothing about other folders.
    let refuse = || {
        let message = "'lora_path' is no folder within the folder of adapters.";
        ApiError::param("lora_path", message)
    };
    let real = |path: PathBuf| async move { tokio::fs::canonicalize(path).await };
    let root = real(root).await.map_err(|_| refuse())?;
    // `join` replaces the root by an absolute path, which is then compared with the root.
    let folder = real(root.join(path)).await.map_err(|_| refuse())?;
    match folder.starts_with(&root) && is_folder(&folder).await {
        true => Ok(folder),
        false => Err(refuse()),
    }
}

async fn is_folder(path: &Path) -> bool {
    let metadata = tokio::fs::metadata(path).await;
    metadata.is_ok_and(|metadata| metadata.is_dir())
}
