//! Fetching what a worker opened.

use std::sync::Arc;

use concord_kernels::Tensor;
use concord_proto::Digest;
use tonic::transport::Channel;

use crate::blobs::fetch_from_worker;
use crate::{RuntimeError, tensor_blob};

/// Blobs fetched from a worker at a time.
const FETCHED_AT_ONCE: usize = 32;

/// Fetches tensors.
///
/// # Errors
/// [`RuntimeError`] where one does not come, or is none.
pub(super) async fn fetch_tensors(
    channel: &Channel,
    digests: Vec<Digest>,
) -> Result<Vec<Arc<Tensor>>, RuntimeError> {
    let read = |bytes: Vec<u8>| tensor_blob::decode(&bytes).map_err(|why| ("tensor", why));
    let tensors = fetch_together(channel, digests, read).await?;
    Ok(tensors.into_iter().map(Arc::new).collect())
}

/// Fetches blobs, several at a time, and decodes each with `read` as soon as it is here.
pub(super) async fn fetch_together<T: Send + 'static>(
    channel: &Channel,
    digests: Vec<Digest>,
    read: impl Fn(Vec<u8>) -> Result<T, (&'static str, String)> + Copy + Send + 'static,
) -> Result<Vec<T>, RuntimeError> {
    let mut found = Vec::new();
    for some in digests.chunks(FETCHED_AT_ONCE) {
        let fetch = |&digest: &Digest| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let bytes = fetch_from_worker(channel, digest).await?;
                read(bytes).map_err(|(what, why)| RuntimeError::BadBlob { digest, what, why })
            })
        };
        let tasks: Vec<_> = some.iter().map(fetch).collect();
        for task in tasks {
            let failed = |error: tokio::task::JoinError| RuntimeError::Unreachable {
                endpoint: "a worker".to_string(),
                why: error.to_string(),
            };
            found.push(task.await.map_err(failed)??);
        }
    }
    Ok(found)
}

/// The error that a worker did not give what its leaf needs.
pub(crate) fn missing(what: &str) -> RuntimeError {
    RuntimeError::Unsupported(format!("the leaf lacks {what}"))
}
