//! Uploads the blobs of a job or a deployment that the coordinator's store lacks. Large ones are
//! not held in memory: they are read again when they are sent.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use concord_coordinator::blobs::BlobStore;
use concord_kernels::{Device, Tensor};
use concord_models::config::TensorSpec;
use concord_models::weights::{Dtype, ModelFolder};
use concord_proto::blob_store::BlobLink;
use concord_proto::client::{ClientRequest, ClientResponse};
use concord_proto::manifest::{ModelManifest, ModelTensor};
use concord_proto::tensor::{StoredDtype, TensorHeader};
use concord_proto::{Digest, Domain, canonical};
use concord_runtime::tensor_blob;
use indicatif::{ProgressBar, ProgressStyle};

use crate::support::blob_spool::{Spool, Spooled};
use crate::support::client::Client;
use crate::support::digest_cache::DigestCache;

/// Addresses in one question to the coordinator.
const ASKED_AT_ONCE: usize = 10_000;

/// Smaller weights are read in a second or two, and need no progress bar.
const BAR_BYTES_MIN: u64 = 256 << 20;

/// Where the bytes of a blob come from when it is sent.
enum Content {
    Bytes(Vec<u8>),
    /// In the spool file.
    Spooled(Spooled),
    /// A tensor of the model, read from its file when it is sent.
    ModelTensor {
        name: String,
        header: TensorHeader,
    },
    /// A tensor of the model as the initial value of training.
    FirstValue(String),
    /// A tensor of zeros of this shape.
    Zeros(Vec<usize>),
}

/// Blobs by address.
#[derive(Default)]
pub struct BlobSet {
    contents: BTreeMap<Digest, Content>,
    /// Addresses of zeros by shape, because many tensors have the same shape.
    zeros: BTreeMap<Vec<usize>, Digest>,
    spool: Spool,
    /// Whether digests from the cache beside a model are used.
    believes_kept: bool,
}

impl BlobSet {
    /// A set that uses digests from the cache beside a model. To be used only where workers check
    /// every tensor against its address; for a comparison with a proof or a receipt, tensors must
    /// be hashed each time.
    pub fn believing_kept_digests() -> Self {
        Self {
            believes_kept: true,
            ..Self::default()
        }
    }

    /// Adds bytes that stay in memory, for small blobs.
    pub fn bytes(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(Domain::Blob, &bytes);
        self.contents.insert(digest, Content::Bytes(bytes));
        digest
    }

    /// Adds the bytes of a large blob, which are kept on disk, or in memory if the disk has no
    /// room.
    pub fn data(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(Domain::Blob, &bytes);
        if !self.contents.contains_key(&digest) {
            let content = match self.spool.put(&bytes) {
                Ok(spooled) => Content::Spooled(spooled),
                Err(_) => Content::Bytes(bytes),
            };
            self.contents.insert(digest, content);
        }
        digest
    }

    /// Adds a tensor of zeros.
    ///
    /// # Errors
    /// Never, on the host.
    pub fn zeros(&mut self, shape: &[usize]) -> anyhow::Result<Digest> {
        if let Some(digest) = self.zeros.get(shape) {
            return Ok(*digest);
        }
        let digest = tensor_blob::digest(&Tensor::zeros(shape))?;
        self.zeros.insert(shape.to_vec(), digest);
        self.contents.insert(digest, Content::Zeros(shape.to_vec()));
        Ok(digest)
    }

    /// Adds a tensor of the model as the initial value of training: f32, without -0.
    ///
    /// # Errors
    /// Where it is missing, or not finite.
    pub fn first_value(&mut self, folder: &ModelFolder, name: &str) -> anyhow::Result<Digest> {
        let digest = tensor_blob::digest(&first_value(folder, name)?)?;
        self.contents
            .insert(digest, Content::FirstValue(name.to_string()));
        Ok(digest)
    }

    /// Adds the canonical encoding of a value.
    pub fn value<T: canonical::Canonical>(&mut self, value: &T) -> Digest {
        self.bytes(canonical::encode(value))
    }

    /// Adds the tensors and the manifest of a model. Returns the address of the manifest.
    ///
    /// # Errors
    /// Naming the file or the tensor that is missing, or not finite.
    pub fn model(&mut self, folder: &ModelFolder) -> anyhow::Result<Digest> {
        let mut specs = folder.config().tensors();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        let mut cache = DigestCache::open(folder);
        let bar = reading_bar(&specs)?;
        let mut tensors = Vec::new();
        for TensorSpec { name, shape } in specs {
            let header = TensorHeader {
                dtype: match folder.dtype(&name) {
                    Some(Dtype::F16) => StoredDtype::F16,
                    Some(Dtype::BF16) => StoredDtype::Bf16,
                    _ => StoredDtype::F32,
                },
                shape: shape.iter().map(|&dim| dim as u64).collect(),
            };
            let file = folder.span(&name)?.map(|(file, _)| file);
            let kept = file.filter(|_| self.believes_kept);
            let blob = match kept.and_then(|file| cache.get(file, &name)) {
                Some(blob) => blob,
                None => tensor_digest(folder, &name, &header)?,
            };
            if let Some(file) = file {
                cache.put(file, &name, blob);
            }
            let bytes = 4 * shape.iter().product::<usize>() as u64;
            bar.inc(bytes);
            tensors.push(ModelTensor {
                name: name.clone(),
                blob,
                bytes,
            });
            self.contents
                .insert(blob, Content::ModelTensor { name, header });
        }
        bar.finish_and_clear();
        cache.save();
        Ok(self.value(&ModelManifest {
            config: folder.config().canonical(),
            tensors,
        }))
    }

    /// The bytes of all blobs that are held in memory.
    pub fn into_bytes(self) -> impl Iterator<Item = Vec<u8>> {
        self.contents
            .into_values()
            .filter_map(|content| match content {
                Content::Bytes(bytes) => Some(bytes),
                _ => None,
            })
    }

    /// Links the tensors of the model into the store of this process's own coordinator, which reads
    /// them from the model's files. Tensors that cannot be linked are sent like other blobs.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub async fn link(&self, folder: &ModelFolder, store: &BlobStore) -> anyhow::Result<()> {
        for (digest, content) in &self.contents {
            let Content::ModelTensor { name, header } = content else {
                continue;
            };
            // No file has the numbers of a packed tensor, so these are sent.
            let Some((path, place)) = folder.span(name)? else {
                continue;
            };
            let (offset, bytes) = (place.start as u64, place.len() as u64);
            if let Some(link) = BlobLink::new(header.prefix(), path, offset, bytes) {
                store.link(digest, &link).await?;
            }
        }
        Ok(())
    }

    fn blob(&self, digest: &Digest, folder: &ModelFolder) -> anyhow::Result<Vec<u8>> {
        let content = self.contents.get(digest);
        Ok(match content.context("a blob that was not asked about")? {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Spooled(spooled) => self.spool.get(spooled)?,
            Content::ModelTensor { name, header } => {
                let mut blob = header.blob(&[]);
                let bytes = header
                    .element_bytes()
                    .and_then(|bytes| usize::try_from(bytes).ok());
                blob.reserve_exact(bytes.unwrap_or(0));
                folder.each_bytes(name, &mut |bytes| {
                    blob.extend_from_slice(bytes);
                    Ok(())
                })?;
                blob
            }
            Content::FirstValue(name) => tensor_blob::encode(&first_value(folder, name)?)?,
            Content::Zeros(shape) => tensor_blob::encode(&Tensor::zeros(shape))?,
        })
    }

    /// Sends the blobs that the store lacks.
    ///
    /// # Errors
    /// Where the store has no room or the coordinator is gone.
    pub async fn upload(
        &self,
        client: &Client,
        folder: &ModelFolder,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let all: Vec<Digest> = self.contents.keys().copied().collect();
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
            let bytes = self.blob(&digest, folder)?;
            let sent = concord_runtime::blobs::upload(client.channel(), bytes).await;
            sent.context("cannot put it into the coordinator's store")?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// The address of a tensor of the model.
fn tensor_digest(
    folder: &ModelFolder,
    name: &str,
    header: &TensorHeader,
) -> anyhow::Result<Digest> {
    // Loading refuses numbers that are not finite, which is better here than in the middle of a
    // job. Packed tensors are loaded below in any case.
    if !folder.is_packed(name) {
        folder.load_rows(name, &mut |_, _| Ok(()))?;
    }
    let mut hasher = header.hasher();
    folder.each_bytes(name, &mut |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    folder.forget(name);
    Ok(hasher.finish())
}

/// A progress bar over the bytes of a model, if reading them takes a while. It is drawn only on
/// terminals.
fn reading_bar(specs: &[TensorSpec]) -> anyhow::Result<ProgressBar> {
    let elements = specs
        .iter()
        .map(|spec| spec.shape.iter().product::<usize>());
    let bytes = 4 * elements.sum::<usize>() as u64;
    if bytes < BAR_BYTES_MIN {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{bar:20} {bytes}/{total_bytes} of numbers read")?;
    Ok(ProgressBar::new(bytes).with_style(style))
}

fn first_value(folder: &ModelFolder, name: &str) -> anyhow::Result<Tensor> {
    let mut value = folder.load(name)?;
    Device::Reference.canonicalise(&mut [(name, &mut value)])?;
    Ok(value)
}
