//! An answer computed again, from what the coordinator's store has.

use std::sync::Arc;

use concord_kernels::Device;
use concord_proto::serving::{AnswerVerdict, BatchedReceipt};
use concord_proto::{Digest, Layers, PublicKey, canonical};
use concord_text::TextTokenizer;

use super::{AnswerCase, JudgedAdapter, judge_on};
use crate::RuntimeError;
use crate::blobs::Blobs;
use crate::model_blobs::ModelBlobs;
use crate::serving::stage::{adapter_tensors, fetch_model, on_a_thread};
use crate::stage_cache::StageCache;

/// Fetches a signed receipt.
///
/// # Errors
/// [`RuntimeError`] where it is unavailable, or is none.
pub(crate) async fn fetch_receipt(
    blobs: &Blobs,
    digest: Digest,
) -> Result<BatchedReceipt, RuntimeError> {
    let bytes = blobs.get_once(digest).await?;
    canonical::decode(&bytes).map_err(|error| RuntimeError::BadBlob {
        digest,
        what: "signed receipt",
        why: error.to_string(),
    })
}

/// Judges a receipt, with the model that it names.
///
/// # Errors
/// [`RuntimeError`] where the model is unavailable, or a GPU fails.
pub(crate) async fn audit(
    blobs: &Blobs,
    device: &Device,
    stages: Arc<StageCache>,
    batched: BatchedReceipt,
    coordinator: PublicKey,
) -> Result<AnswerVerdict, RuntimeError> {
    // What is no receipt names no model: the verdict is that it was altered.
    let altered = |what: String| Ok(AnswerVerdict::Altered { what });
    let receipt = match batched.open() {
        Ok(receipt) => receipt,
        Err(error) => return altered(error.to_string()),
    };
    let deployment = &receipt.deployment;
    let (config, manifest) = fetch_model(blobs, deployment).await?;
    let layers = Layers::new(0, deployment.layers);
    let tensors = ModelBlobs::fetch(blobs, &config, &manifest, layers).await?;
    let adapter = match receipt.spec.adapter {
        None => None,
        Some(adapter) => {
            let (lora, tensors) = adapter_tensors(blobs, adapter).await?;
            Some(JudgedAdapter { lora, tensors })
        }
    };
    let tokenizer = tokenizer(&blobs.get(deployment.tokenizer).await?)?;
    let device = device.clone();
    on_a_thread(move || {
        let case = AnswerCase {
            receipt: &batched,
            coordinator: Some(coordinator),
            config,
            tensors: &tensors,
            tokenizer: Some(tokenizer),
            adapter: adapter.as_ref(),
            device: &device,
        };
        judge_on(&case, &stages, &mut |_| {})
    })
    .await?
}

fn tokenizer(bytes: &Arc<Vec<u8>>) -> Result<Arc<TextTokenizer>, RuntimeError> {
    let tokenizer = TextTokenizer::from_bytes(bytes, None);
    tokenizer
        .map(Arc::new)
        .map_err(|error| RuntimeError::Unsupported(error.to_string()))
}
