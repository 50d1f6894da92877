//! An answer computed again, from what the coordinator's store has.

use std::sync::Arc;

use concord_kernels::Device;
use concord_proto::serving::{AnswerVerdict, Receipt};
use concord_proto::{Digest, Layers, PublicKey, Signed, canonical};
use concord_text::TextTokenizer;

use super::judge::{Case, JudgedAdapter, judge_on};
use super::load::{self, on_a_thread};
use crate::RuntimeError;
use crate::blobs::Blobs;
use crate::checker::Stages;
use crate::model_blobs::ModelBlobs;

/// Judges the receipt of a blob.
///
/// # Errors
/// [`RuntimeError`] where model or receipt cannot be had, or a GPU fails.
pub(crate) async fn audit(
    blobs: &Blobs,
    device: &Device,
    stages: Arc<Stages>,
    digest: Digest,
    coordinator: PublicKey,
) -> Result<AnswerVerdict, RuntimeError> {
    let bytes = blobs.get_once(digest).await?;
    let signed: Signed = canonical::decode(&bytes).map_err(|error| RuntimeError::BadBlob {
        digest,
        what: "signed receipt",
        why: error.to_string(),
    })?;
    // What is no receipt names no model: the judge says so.
    let altered = |what: String| Ok(AnswerVerdict::Altered { what });
    let receipt: Receipt = match signed.open() {
        Ok(receipt) => receipt,
        Err(error) => return altered(error.to_string()),
    };
    let deployment = &receipt.deployment;
    let (config, manifest) = load::model(blobs, deployment).await?;
    let layers = Layers {
        start: 0,
        end: deployment.layers,
    };
    let tensors = ModelBlobs::fetch(blobs, &config, &manifest, layers).await?;
    let adapter = match receipt.spec.adapter {
        None => None,
        Some(adapter) => {
            let (lora, tensors) = load::adapter_tensors(blobs, adapter).await?;
            Some(JudgedAdapter { lora, tensors })
        }
    };
    let tokenizer = match receipt.spec.sampling.grammar {
        None => None,
        Some(_) => Some(tokenizer(&blobs.get(deployment.tokenizer).await?)?),
    };
    let device = device.clone();
    on_a_thread(move || {
        let case = Case {
            receipt: &signed,
            coordinator: Some(coordinator),
            config,
            tensors: &tensors,
            tokenizer: tokenizer.as_ref(),
            adapter: adapter.as_ref(),
            device: &device,
        };
        judge_on(&case, &stages, &mut |_| {})
    })
    .await?
}

fn tokenizer(bytes: &Arc<Vec<u8>>) -> Result<TextTokenizer, RuntimeError> {
    let tokenizer = TextTokenizer::from_bytes(bytes, None);
    tokenizer.map_err(|error| RuntimeError::Unsupported(error.to_string()))
}
