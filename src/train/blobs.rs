//! The blobs of a job on their way into the coordinator's store: only those that it lacks.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use concord_models::weights::ModelFolder;
use concord_proto::client::{ClientRequest, ClientResponse};
use concord_proto::manifest::TensorHeader;
use concord_proto::{Digest, Domain, canonical};
use indicatif::ProgressBar;

use crate::client::Client;

/// Addresses asked about in one message.
const ASKED_AT_ONCE: usize = 10_000;

/// What a blob is made of, until it is sent.
enum Content {
    Bytes(Vec<u8>),
    /// A tensor of the model, read from its file when it is sent.
    ModelTensor {
        name: String,
        header: TensorHeader,
    },
}

/// Blobs by address.
#[derive(Default)]
pub struct BlobSet(BTreeMap<Digest, Content>);

impl BlobSet {
    /// Adds bytes.
    pub fn bytes(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(Domain::Blob, &bytes);
        self.0.insert(digest, Content::Bytes(bytes));
        digest
    }

    /// Adds the canonical encoding of a value.
    pub fn value<T: canonical::Canonical>(&mut self, value: &T) -> Digest {
        self.bytes(canonical::encode(value))
    }

    /// Adds a tensor of the model.
    pub fn model_tensor(&mut self, digest: Digest, name: &str, header: TensorHeader) {
        self.0.insert(
            digest,
            Content::ModelTensor {
                name: name.to_string(),
                header,
            },
        );
    }

    /// Sends what the store lacks.
    ///
    /// # Errors
    /// Where the store has no room or the coordinator is gone.
    pub async fn upload(
        &self,
        client: &Client,
        folder: &ModelFolder,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let all: Vec<Digest> = self.0.keys().copied().collect();
        let mut missing = Vec::new();
        for asked in all.chunks(ASKED_AT_ONCE) {
            match client
                .call(&ClientRequest::MissingBlobs(asked.to_vec()))
                .await?
            {
                ClientResponse::MissingBlobs(some) => missing.extend(some),
                other => bail!("the coordinator answers {other:?}"),
            }
        }
        bar.set_length(missing.len() as u64);
        for digest in missing {
            let bytes = match &self.0[&digest] {
                Content::Bytes(bytes) => bytes.clone(),
                Content::ModelTensor { name, header } => header.blob(folder.bytes(name)?),
            };
            let sent = concord_runtime::blobs::upload(client.channel(), bytes).await;
            sent.context("cannot put the job's data into the coordinator's store")?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }
}
