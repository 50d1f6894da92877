//! Judges the receipt of an answer on this machine: the answer is computed again, in one pass.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use concord_kernels::Device;
use concord_kernels::packed::QuantFormat;
use concord_models::weights::ModelFolder;
use concord_proto::serving::{AdapterManifest, AnswerVerdict, BatchedReceipt, Receipt};
use concord_proto::{Digest, PublicKey};
use concord_runtime::serving::judge::{AnswerCase, JudgeProgress, JudgedAdapter, judge};
use concord_text::TextTokenizer;

use crate::support::adapter_blobs::adapter_manifest;
use crate::support::blobs::BlobSet;
use crate::support::load_in;

/// The model by which receipts are judged.
pub struct ReceiptJudge {
    folder: ModelFolder,
    /// Digests of the model and of its tokenizer.
    model: Digest,
    tokenizer_digest: Digest,
    tokenizer: Arc<TextTokenizer>,
    adapter: Option<PathBuf>,
    device: Device,
}

impl ReceiptJudge {
    /// Opens a model, and the adapter that answered, if one did.
    ///
    /// # Errors
    /// Naming the file that cannot be read.
    pub fn open(
        model: &Path,
        format: Option<QuantFormat>,
        adapter: Option<&Path>,
        device: Device,
    ) -> anyhow::Result<Self> {
        let path = crate::support::loaded_model::resolve(&model.to_string_lossy())?;
        let folder = load_in::open(&path, format)?;
        Ok(Self {
            model: BlobSet::default().model(&folder)?,
            tokenizer_digest: BlobSet::default().bytes(folder.tokenizer_json()?),
            tokenizer: Arc::new(folder.tokenizer()?),
            adapter: adapter.map(Path::to_path_buf),
            folder,
            device,
        })
    }

    pub fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Judges a receipt; `coordinator` is the key that must have signed it.
    ///
    /// # Errors
    /// Where this model is not the receipt's, or cannot be computed: that says nothing about it.
    pub fn judge(
        &self,
        signed: &BatchedReceipt,
        coordinator: Option<PublicKey>,
        progress: &mut dyn FnMut(JudgeProgress),
    ) -> anyhow::Result<AnswerVerdict> {
        let receipt = signed.open()?;
        let deployment = &receipt.deployment;
        check_root("model", self.model, deployment.model)?;
        check_root("tokenizer", self.tokenizer_digest, deployment.tokenizer)?;
        let adapter = self.adapter(&receipt)?;
        let case = AnswerCase {
            receipt: signed,
            coordinator,
            config: Arc::new(self.folder.config().clone()),
            tensors: &self.folder,
            tokenizer: Some(self.tokenizer.clone()),
            adapter: adapter.as_ref(),
            device: &self.device,
        };
        Ok(judge(&case, progress)?)
    }

    fn adapter(&self, receipt: &Receipt) -> anyhow::Result<Option<JudgedAdapter>> {
        let (named, given) = (receipt.spec.adapter, &self.adapter);
        let (Some(named), Some(given)) = (named, given) else {
            return match (named, given) {
                (None, _) => Ok(None),
                _ => bail!("an adapter answered: name its folder, too"),
            };
        };
        let mut blobs = BlobSet::default();
        let (manifest, tensors): (AdapterManifest, _) =
            adapter_manifest(given, self.folder.config(), &mut blobs)?;
        check_root("adapter", blobs.value(&manifest), named)?;
        Ok(Some(JudgedAdapter::new(&manifest, tensors)?))
    }
}

/// Refuses files that are not those of the receipt.
fn check_root(what: &str, found: Digest, named: Digest) -> anyhow::Result<()> {
    if found != named {
        bail!(
            "the {what} is another one: the receipt names {}, this one is {}",
            named.short(),
            found.short()
        );
    }
    Ok(())
}
