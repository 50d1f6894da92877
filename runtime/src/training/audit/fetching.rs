//! Fetching what a worker opened.

use std::sync::Arc;

use concord_kernels::Tensor;
use concord_proto::limits::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX};
use concord_proto::{Digest, JobSpec, Layers, PortKind};
use tonic::transport::Channel;

use crate::blobs::fetch_from_worker;
use crate::training::leaf_work;
use crate::{RuntimeError, tensor_blob};

/// Blobs fetched from a worker at a time.
const FETCHED_AT_ONCE: usize = 32;

/// What the shape and the form of a tensor take before its elements, at most.
const HEADER_BYTES_MAX: u64 = 4_096;

/// How much a worker may give of the inputs of a leaf, by the spec of the job: what it gives is
/// compared with the leaf once it is here, and has to fit into memory before.
#[derive(Clone, Copy, Debug)]
pub(super) struct InputLimits {
    /// Tensors that the stage trains.
    pub(super) held: usize,
    /// Bytes of the largest of them.
    largest: u64,
    /// Bytes that there is memory for.
    room: u64,
}

impl InputLimits {
    pub(super) fn of(spec: &JobSpec, layers: Layers, room: u64) -> Self {
        let held = leaf_work::held_names(spec, layers);
        let bytes = held.iter().map(|(index, _)| {
            let shape = &spec.trainable[*index as usize].shape;
            let elements = shape
                .iter()
                .fold(1, |all: u64, &dim| all.saturating_mul(dim));
            elements.saturating_mul(4).saturating_add(HEADER_BYTES_MAX)
        });
        Self {
            largest: bytes.max().unwrap_or(0),
            held: held.len(),
            room,
        }
    }

    /// Most blobs of a port.
    pub(super) fn blobs(&self, kind: PortKind) -> usize {
        match kind {
            PortKind::State | PortKind::Partial { .. } => self.held,
            PortKind::Moments => 2 * self.held,
            PortKind::Tokens | PortKind::Loss | PortKind::Norms => 0,
            PortKind::Activation(_) | PortKind::Gradient(_) | PortKind::Scalars => 1,
        }
    }

    /// Most bytes of what went over a cut.
    pub(super) fn frame_bytes(&self) -> u64 {
        FRAME_BYTES_MAX.min(self.room)
    }

    /// Most bytes of each of them.
    pub(super) fn bytes(&self, kind: PortKind) -> u64 {
        let most = match kind {
            PortKind::State | PortKind::Partial { .. } | PortKind::Moments => self.largest,
            PortKind::Tokens | PortKind::Loss | PortKind::Norms => 0,
            PortKind::Activation(_) | PortKind::Gradient(_) => self.frame_bytes(),
            PortKind::Scalars => MESSAGE_BYTES_MAX as u64,
        };
        most.min(self.room)
    }
}

/// Fetches tensors of at most `most` bytes each.
///
/// # Errors
/// [`RuntimeError`] where one does not come, or is none.
pub(super) async fn fetch_tensors(
    channel: &Channel,
    digests: Vec<Digest>,
    most: u64,
) -> Result<Vec<Arc<Tensor>>, RuntimeError> {
    let read = |bytes: Vec<u8>| tensor_blob::decode(&bytes).map_err(|why| ("tensor", why));
    let tensors = fetch_together(channel, digests, most, read).await?;
    Ok(tensors.into_iter().map(Arc::new).collect())
}

/// Fetches blobs of at most `most` bytes each, several at a time, and decodes each with `read` as
/// soon as it is here.
pub(super) async fn fetch_together<T: Send + 'static>(
    channel: &Channel,
    digests: Vec<Digest>,
    most: u64,
    read: impl Fn(Vec<u8>) -> Result<T, (&'static str, String)> + Copy + Send + 'static,
) -> Result<Vec<T>, RuntimeError> {
    let mut found = Vec::new();
    for some in digests.chunks(FETCHED_AT_ONCE) {
        let fetch = |&digest: &Digest| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let bytes = fetch_from_worker(channel, digest, most).await?;
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
