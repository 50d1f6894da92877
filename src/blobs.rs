//! Blobs of a job or a deployment on their way into the coordinator's store: only those that it
//! lacks.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use concord_models::weights::{Dtype, ModelFolder};
use concord_proto::client::{ClientRequest, ClientResponse};
use concord_proto::manifest::{ModelManifest, ModelTensor, StoredDtype, TensorHeader};
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

    /// Adds a model: its tensors, and the manifest, whose address this is.
    ///
    /// # Errors
    /// Naming the file or the tensor that is missing, or not finite.
    pub fn model(&mut self, folder: &ModelFolder) -> anyhow::Result<Digest> {
        let mut specs = folder.config().tensors();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        let mut tensors = Vec::new();
        for spec in specs {
            // Loading refuses what is not finite: better here than in the middle of a job.
            folder.load(&spec.name)?;
            let bytes = folder.bytes(&spec.name)?;
            let header = TensorHeader {
                dtype: match folder.dtype(&spec.name) {
                    Some(Dtype::F16) => StoredDtype::F16,
                    Some(Dtype::BF16) => StoredDtype::Bf16,
                    _ => StoredDtype::F32,
                },
                shape: spec.shape.iter().map(|&dim| dim as u64).collect(),
            };
            let blob = header.digest(bytes);
            let name = spec.name.clone();
            self.0.insert(blob, Content::ModelTensor { name, header });
            tensors.push(ModelTensor {
                name: spec.name,
                blob,
                bytes: bytes.len() as u64,
            });
        }
        Ok(self.value(&ModelManifest {
            config_json: folder.config_json().to_string(),
            tensors,
        }))
    }

    /// The bytes of all blobs but the tensors of a model.
    pub fn into_bytes(self) -> impl Iterator<Item = Vec<u8>> {
        self.0.into_values().filter_map(|content| match content {
            Content::Bytes(bytes) => Some(bytes),
            Content::ModelTensor { .. } => None,
        })
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
            sent.context("cannot put it into the coordinator's store")?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }
}
