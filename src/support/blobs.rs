//! Uploads the blobs of a job or a deployment that the coordinator's store lacks. Large ones are
//! not held in memory: they are read again when they are sent.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use concord_coordinator::blobs::BlobStore;
use concord_kernels::packed::BlockFormat;
use concord_kernels::{Device, MomentKind, Tensor};
use concord_models::config::TensorSpec;
use concord_models::train::{Moment, MomentForm};
use concord_models::weights::{ModelFolder, StoredForm};
use concord_proto::blob_store::BlobLink;
use concord_proto::client::{ClientRequest, ClientResponse};
use concord_proto::manifest::{ModelManifest, ModelTensor};
use concord_proto::tensor::TensorHeader;
use concord_proto::{Digest, Domain, canonical};
use concord_runtime::{moment_blob, tensor_blob};
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
    ZeroMoment(ZeroMoment),
}

/// A moment of a tensor before the first step.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ZeroMoment {
    is_packed: bool,
    is_second: bool,
    /// Of a moment that is kept.
    shape: Vec<usize>,
}

impl ZeroMoment {
    fn moment(&self) -> Moment {
        let form = match self.is_packed {
            false => MomentForm::F32,
            true => MomentForm::Bits8,
        };
        let kind = match self.is_second {
            false => MomentKind::First,
            true => MomentKind::Second,
        };
        Moment::zeros(form, kind, &self.shape)
    }
}

/// Blobs by address.
#[derive(Default)]
pub struct BlobSet {
    contents: BTreeMap<Digest, Content>,
    /// Addresses of moments of zeros, because many tensors have the same shape.
    zeros: BTreeMap<ZeroMoment, Digest>,
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

    /// Adds a moment of zeros.
    ///
    /// # Errors
    /// Never, on the host.
    pub fn zero_moment(
        &mut self,
        form: MomentForm,
        kind: MomentKind,
        shape: &[usize],
    ) -> anyhow::Result<Digest> {
        let zeros = ZeroMoment {
            is_packed: form.is_packed(),
            is_second: kind == MomentKind::Second,
            shape: match form.keeps(kind) {
                true => shape.to_vec(),
                false => vec![0],
            },
        };
        if let Some(digest) = self.zeros.get(&zeros) {
            return Ok(*digest);
        }
        let digest = moment_blob::digest(&zeros.moment())?;
        self.zeros.insert(zeros.clone(), digest);
        self.contents.insert(digest, Content::ZeroMoment(zeros));
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
            let StoredForm { format, file, .. } = folder.stored_form(&name)?;
            let header = TensorHeader {
                dtype: format,
                shape: shape.iter().map(|&dim| dim as u64).collect(),
            };
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
            // What lies nowhere in one piece, as it is sent, is put into the store.
            let form = folder.stored_form(name)?;
            let (Some(path), Some(place)) = (form.file, form.place) else {
                continue;
            };
            let (offset, bytes) = (place.start as u64, place.len() as u64);
            if let Some(link) = BlobLink::new(header.prefix(), path, offset, bytes) {
                store.link(digest, &link).await?;
            }
        }
        Ok(())
    }

    /// The bytes of a blob of the set, whose model is in `folder`.
    ///
    /// # Errors
    /// Where it is none, or cannot be read.
    pub fn blob(&self, digest: &Digest, folder: &ModelFolder) -> anyhow::Result<Vec<u8>> {
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
                folder.each_stored(name, &mut |bytes| {
                    blob.extend_from_slice(bytes);
                    Ok(())
                })?;
                blob
            }
            Content::FirstValue(name) => tensor_blob::encode(&first_value(folder, name)?)?,
            Content::ZeroMoment(zeros) => moment_blob::encode(&zeros.moment())?,
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
    let wide = TensorHeader {
        dtype: BlockFormat::F32,
        ..header.clone()
    };
    // Loading refuses what is not finite: better here than in the middle of a job.
    let mut hasher = wide.hasher();
    folder.load_rows(name, &mut |_, rows| {
        hasher.update_numbers(rows.data());
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

#[cfg(test)]
mod tests {
    use concord_models::config::DecoderConfig;
    use concord_models::export::{ExportDtype, write_generated};

    use super::*;

    /// A model that is large enough for its digests to be kept.
    const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32,
        "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "vocab_size": 1048576, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true}"#;

    /// What is compared with a proof is hashed, whatever lies beside the weights.
    #[test]
    fn a_kept_digest_is_believed_for_a_name_and_not_for_a_proof() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
        let tensors = DecoderConfig::from_json(CONFIG).unwrap().tensors();
        let path = dir.path().join("model.safetensors");
        let fill = |_: &str, _: u64, values: &mut [f32]| values.fill(1.0);
        write_generated(&path, &tensors, ExportDtype::BF16, 2, &fill).unwrap();
        let folder = ModelFolder::open(dir.path()).unwrap();
        let hashed = || BlobSet::default().model(&folder).unwrap();
        let believed = || BlobSet::believing_kept_digests().model(&folder).unwrap();
        let honest = hashed();
        assert_eq!(believed(), honest);
        let mut cache = DigestCache::open(&folder);
        cache.put(
            &path,
            "model.norm.weight",
            Digest::of(Domain::Blob, b"wrong"),
        );
        cache.save();
        assert_ne!(believed(), honest, "the lie is not read");
        assert_eq!(hashed(), honest);
    }
}
