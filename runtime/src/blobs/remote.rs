//! Blobs over gRPC, in chunks, checked on arrival.

use concord_proto::Digest;
use concord_proto::limits::{BLOB_BYTES_MAX, CHUNK_BYTES, MESSAGE_BYTES_MAX};
use concord_proto::tensor::address_of;
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{BlobAddress, Chunk, ending};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::RuntimeError;

/// Fetches a blob from the coordinator's store.
///
/// # Errors
/// [`RuntimeError`] where it is missing, broken, too large, or the coordinator is out of reach.
pub async fn fetch_from_coordinator(
    channel: Channel,
    digest: Digest,
) -> Result<Vec<u8>, RuntimeError> {
    let mut client = CoordinatorClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let address = BlobAddress {
        digest: digest.0.to_vec(),
    };
    let answer = client.get_blob(address).await;
    collect(
        answer
            .map_err(|status| failed(digest, &status))?
            .into_inner(),
        digest,
        BLOB_BYTES_MAX,
    )
    .await
}

/// Fetches a blob of at most `most` bytes that a worker gives out.
///
/// # Errors
/// As [`fetch_from_coordinator`].
pub async fn fetch_from_worker(
    channel: Channel,
    digest: Digest,
    most: u64,
) -> Result<Vec<u8>, RuntimeError> {
    let mut client = WorkerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let address = BlobAddress {
        digest: digest.0.to_vec(),
    };
    let answer = client.get_blob(address).await;
    collect(
        answer
            .map_err(|status| failed(digest, &status))?
            .into_inner(),
        digest,
        most,
    )
    .await
}

async fn collect(
    mut chunks: Streaming<Chunk>,
    digest: Digest,
    most: u64,
) -> Result<Vec<u8>, RuntimeError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks
        .message()
        .await
        .map_err(|status| failed(digest, &status))?
    {
        if (bytes.len() + chunk.data.len()) as u64 > most {
            let why = format!("over {most} bytes");
            return Err(RuntimeError::BadBlob {
                digest,
                what: "blob",
                why,
            });
        }
        bytes.extend_from_slice(&chunk.data);
    }
    let got = address_of(&bytes);
    if got == digest {
        Ok(bytes)
    } else {
        Err(RuntimeError::WrongBlob {
            expected: digest,
            got,
        })
    }
}

fn failed(digest: Digest, status: &Status) -> RuntimeError {
    match status.code() {
        Code::NotFound => RuntimeError::MissingBlob(digest),
        Code::DataLoss => RuntimeError::Damaged {
            digest,
            why: ending(status),
        },
        _ => RuntimeError::Unreachable {
            endpoint: format!("the holder of blob {}", digest.short()),
            why: ending(status),
        },
    }
}

/// Puts a blob into the coordinator's store.
///
/// # Errors
/// [`RuntimeError::Unreachable`] with the coordinator's reason.
pub async fn upload(channel: Channel, bytes: Vec<u8>) -> Result<Digest, RuntimeError> {
    let digest = address_of(&bytes);
    let starts = (0..bytes.len()).step_by(CHUNK_BYTES);
    // Chunks are made one at a time, so that the blob is in memory only once.
    let chunks = starts.map(move |start| {
        let end = bytes.len().min(start + CHUNK_BYTES);
        let data = bytes[start..end].to_vec();
        Chunk { data }
    });
    let mut client = CoordinatorClient::new(channel);
    let answer = client
        .put_blob(tokio_stream::iter(chunks))
        .await
        .map_err(|status| RuntimeError::Unreachable {
            endpoint: "the coordinator's store".to_string(),
            why: ending(&status),
        })?;
    match <[u8; 32]>::try_from(answer.into_inner().digest) {
        Ok(got) if got == digest.0 => Ok(digest),
        _ => Err(RuntimeError::WrongBlob {
            expected: digest,
            got: Digest::default(),
        }),
    }
}
