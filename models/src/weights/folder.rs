//! A Hugging Face model folder: its configuration, and its weights in one file or in shards.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use concord_kernels::Tensor;
use safetensors::Dtype;

use super::shards::{self, INDEX, TensorHome};
use super::{TakeRows, TensorFile};
use crate::config::DecoderConfig;
use crate::error::ModelError;

pub(super) const EMBED: &str = "model.embed_tokens.weight";
pub(super) const HEAD: &str = "lm_head.weight";

/// A model folder whose every needed tensor has been found, with the right shape and a readable
/// format, and no other. Opening reads headers only; [`ModelFolder::load`] touches the bytes of one
/// tensor.
#[derive(Debug)]
pub struct ModelFolder {
    dir: PathBuf,
    pub(super) config: DecoderConfig,
    pub(super) config_json: String,
    files: Vec<TensorFile>,
    /// Where each tensor is, by its name in transformers.
    pub(super) homes: BTreeMap<String, TensorHome>,
}

impl ModelFolder {
    /// Opens a folder with `config.json` and either `model.safetensors` or shards with their
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key or tensor.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let (config, config_json) = DecoderConfig::read(dir)?;
        let (files, homes) = shards::open(dir)?;
        let mut folder = Self {
            dir: dir.to_path_buf(),
            config,
            config_json,
            files,
            homes,
        };
        folder.settle_head()?;
        for spec in folder.config.tensors() {
            let (file, stored) = folder.stored(&spec.name)?;
            file.check(stored, &spec.shape)?;
        }
        folder.check_unused()?;
        Ok(folder)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The paths of the weights files, sorted.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(TensorFile::path)
    }

    /// A tensor as f32; the conversion is exact. With tied embeddings `lm_head.weight` is the
    /// embedding.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the tensor; [`ModelError::BadTensor`] for NaN and
    /// infinity, with the element.
    pub fn load(&self, name: &str) -> Result<Tensor, ModelError> {
        let (file, stored) = self.stored(name)?;
        file.load(stored)
    }

    /// As [`Self::load`], some rows of a matrix at a time.
    ///
    /// # Errors
    /// As [`Self::load`]; and what `take` says.
    pub fn load_rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let (file, stored) = self.stored(name)?;
        file.load_rows(stored, take)
    }

    /// The bytes of a tensor as they lie in its file: what a content address is taken of.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn bytes(&self, name: &str) -> Result<&[u8], ModelError> {
        let (file, stored) = self.stored(name)?;
        file.bytes(stored)
    }

    /// Lets the system take back the memory that the bytes of a tensor were read into.
    pub fn forget(&self, name: &str) {
        if let Ok((file, stored)) = self.stored(name) {
            file.forget(stored);
        }
    }

    /// The file of a tensor, and where in it the bytes lie.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn span(&self, name: &str) -> Result<(&Path, Range<usize>), ModelError> {
        let (file, stored) = self.stored(name)?;
        Ok((file.path(), file.place(stored)?))
    }

    /// The number format of a tensor in its file, or `None` where there is no such tensor.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        let (file, stored) = self.stored(name).ok()?;
        file.dtype(stored)
    }

    /// The text of `config.json`, byte for byte; but where the weights have a head of their own
    /// although it says that the head is the embedding, it says `tie_word_embeddings` false.
    pub fn config_json(&self) -> &str {
        &self.config_json
    }

    /// The names of all tensors of the weights, used or not.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.homes.keys().map(String::as_str)
    }

    /// The file of a tensor of the model, and the tensor's name there.
    fn stored(&self, name: &str) -> Result<(&TensorFile, &str), ModelError> {
        match name == HEAD && self.config.tie_embeddings {
            true => self.found(EMBED),
            false => self.found(name),
        }
    }

    /// The file that holds a tensor by this name, and its name there.
    pub(super) fn found(&self, name: &str) -> Result<(&TensorFile, &str), ModelError> {
        let home = self.homes.get(name);
        let found = home.and_then(|home| Some((self.files.get(home.file)?, home.stored.as_str())));
        found.ok_or_else(|| ModelError::MissingTensor {
            path: self.place(name),
            tensor: name.to_string(),
        })
    }

    /// What to name in an error about a tensor: its file, or the index where it is in none of
    /// several.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        let home = self
            .homes
            .get(name)
            .and_then(|home| self.files.get(home.file));
        match (home, self.files.as_slice()) {
            (Some(file), _) | (None, [file]) => file.path().to_path_buf(),
            (None, _) => self.dir.join(INDEX),
        }
    }
}
