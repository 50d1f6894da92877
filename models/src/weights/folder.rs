//! A model on disk, a Hugging Face folder or a GGUF file: its configuration, and its weights in one
//! file or several.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use concord_kernels::Tensor;
use concord_kernels::packed::BlockFormat;
use safetensors::Dtype;
use serde_json::Value;

use super::decoded::DecodedTensor;
use super::gguf::{GgufModel, GgufRows};
use super::quantized::Quantized;
use super::shards::{self, INDEX, SINGLE, TensorHome};
use super::{TakeRows, TensorFile};
use crate::config::{DecoderConfig, TensorSpec, without_key};
use crate::error::ModelError;

/// Takes the bytes of a tensor, in order, some at a time.
pub type TakeBytes<'a> = dyn FnMut(&[u8]) -> Result<(), ModelError> + 'a;

/// A model on disk. All tensors that it needs are there, with the right shape and a supported
/// format, and no others. Opening reads headers only; [`ModelFolder::load`] reads the bytes of one
/// tensor.
#[derive(Debug)]
pub struct ModelFolder {
    pub(super) dir: PathBuf,
    pub(super) config: DecoderConfig,
    pub(super) config_json: String,
    files: Vec<TensorFile>,
    /// Where each tensor is, by its name in transformers; packed tensors are not in it.
    pub(super) homes: BTreeMap<String, TensorHome>,
    quantized: Option<Quantized>,
    /// The names of embedding and head.
    ends: [String; 2],
    pub(super) gguf: Option<GgufModel>,
}

impl ModelFolder {
    /// Opens a model: a folder with `config.json` and either `model.safetensors` or shards with
    /// their `model.safetensors.index.json`; a GGUF file, or the first of its parts; or a folder
    /// that has such a file and no safetensors. Where the folder of a GGUF file is named, its
    /// `config.json` and `tokenizer.json` replace those in the file; where the file itself is
    /// named, they are ignored.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key or tensor.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            return Self::open_gguf(path, path);
        }
        let has = |name: &str| path.join(name).is_file();
        if !has(SINGLE)
            && !has(INDEX)
            && path.is_dir()
            && let Some(file) = GgufModel::in_folder(path)?
        {
            return Self::open_gguf(path, &file);
        }
        let (config, config_json) = DecoderConfig::read(path)?;
        let (files, mut homes) = shards::open(path, config.parts())?;
        let quantized = Quantized::find(path, &config_json, &mut homes)?;
        let mut folder = Self {
            dir: path.to_path_buf(),
            ends: ends(&config),
            config,
            // The weights are given as decoded numbers, not packed.
            config_json: without_key(&config_json, "quantization_config"),
            files,
            homes,
            quantized,
            gguf: None,
        };
        folder.settle_head()?;
        for spec in folder.config.tensors() {
            folder.check(&spec)?;
        }
        folder.check_unused()?;
        Ok(folder)
    }

    /// Opens a GGUF file; `named` is the path that the user gave, which may be its folder.
    fn open_gguf(named: &Path, file: &Path) -> Result<Self, ModelError> {
        let gguf = GgufModel::open(file)?;
        // The metadata is checked even where a config.json replaces it: in a file of another
        // architecture the tensors are laid out differently.
        let metadata = gguf.config()?;
        let (config, config_json) = match named.join("config.json").is_file() {
            true => DecoderConfig::read(named)?,
            false => {
                let mut text = serde_json::to_string_pretty(&Value::Object(metadata))
                    .map_err(ModelError::json(file))?;
                text.push('\n');
                (DecoderConfig::from_metadata(file, &text)?, text)
            }
        };
        let folder = Self {
            dir: named.to_path_buf(),
            ends: ends(&config),
            config,
            config_json,
            files: Vec::new(),
            homes: BTreeMap::new(),
            quantized: None,
            gguf: Some(gguf),
        };
        for spec in folder.config.tensors() {
            folder.check(&spec)?;
        }
        folder.check_unused()?;
        Ok(folder)
    }

    /// The path that was opened: the folder, or the GGUF file.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The paths of the weights files, sorted.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let gguf = self.gguf.iter().flat_map(GgufModel::paths);
        self.files.iter().map(TensorFile::path).chain(gguf)
    }

    /// A tensor as f32. With tied embeddings `lm_head.weight` is the embedding.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the tensor; [`ModelError::BadTensor`] for NaN and
    /// infinity, with the element.
    pub fn load(&self, name: &str) -> Result<Tensor, ModelError> {
        if let Some(decoded) = self.decoded(name)? {
            return decoded.load();
        }
        let (file, stored) = self.stored(name)?;
        file.load(stored)
    }

    /// As [`Self::load`], some rows of a matrix at a time.
    ///
    /// # Errors
    /// As [`Self::load`], and the errors of `take`.
    pub fn load_rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        if let Some(decoded) = self.decoded(name)? {
            return decoded.load_rows(take);
        }
        let (file, stored) = self.stored(name)?;
        file.load_rows(stored, take)
    }

    /// The numbers of a tensor as bytes, little-endian, in the dtype [`Self::dtype`]. They do not
    /// depend on how a weight is packed, nor on the order of its rows in the file.
    ///
    /// # Errors
    /// As [`Self::load`], and the errors of `take`.
    pub fn each_bytes(&self, name: &str, take: &mut TakeBytes<'_>) -> Result<(), ModelError> {
        if let Some(rows) = self
            .gguf_rows(name)?
            .filter(|rows| dtype_of(rows).is_some())
        {
            return match rows.is_in_order() {
                true => take(rows.bytes),
                false => rows.each_stored(take),
            };
        }
        if self.is_packed(name) {
            return self.load_rows(name, &mut |_, rows| {
                let words = rows.data().iter().flat_map(|number| number.to_le_bytes());
                take(&words.collect::<Vec<u8>>())
            });
        }
        take(self.bytes(name)?)
    }

    /// The bytes of a tensor as in its safetensors file.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], also for a packed weight, which has no bytes of its own.
    pub fn bytes(&self, name: &str) -> Result<&[u8], ModelError> {
        let (file, stored) = self.stored(name)?;
        file.bytes(stored)
    }

    /// Lets the system take back the memory of a tensor's bytes ([`TensorFile::forget`]).
    pub fn forget(&self, name: &str) {
        if let Ok((file, stored)) = self.stored(name) {
            file.forget(stored);
        }
    }

    /// The file that contains the bytes of [`Self::each_bytes`] as one range, and that range;
    /// `None` where no file does.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn span(&self, name: &str) -> Result<Option<(&Path, Range<usize>)>, ModelError> {
        if let Some(gguf) = &self.gguf {
            let rows = self.gguf_rows(name)?;
            let plain = rows.filter(|rows| rows.is_in_order() && dtype_of(rows).is_some());
            let path = gguf.path(self.settled(name));
            return Ok(plain.map(|rows| (path, rows.place.0..rows.place.1)));
        }
        if self.is_packed(name) {
            return Ok(None);
        }
        let (file, stored) = self.stored(name)?;
        Ok(Some((file.path(), file.place(stored)?)))
    }

    /// The dtype in which [`Self::each_bytes`] gives a tensor: that of its file, or F32 for a
    /// packed one. `None` where there is no such tensor.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        if self.gguf.is_some() {
            let rows = self.gguf_rows(name).ok()??;
            return Some(dtype_of(&rows).unwrap_or(Dtype::F32));
        }
        if self.is_packed(name) {
            return Some(Dtype::F32);
        }
        let (file, stored) = self.stored(name).ok()?;
        file.dtype(stored)
    }

    /// The text of `config.json`, byte for byte, with two changes that follow from the weights:
    /// `tie_word_embeddings` is false where they have a head of their own, and
    /// `quantization_config` is removed. For a GGUF file it is made from the metadata.
    pub fn config_json(&self) -> &str {
        &self.config_json
    }

    /// The names of all tensors of the weights, used or not.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let packed = self.quantized.iter().flat_map(Quantized::names);
        let gguf = self.gguf.iter().flat_map(GgufModel::names);
        self.homes
            .keys()
            .map(String::as_str)
            .chain(packed)
            .chain(gguf)
    }

    /// Refuses a tensor that is missing, has another shape, or is of an unsupported format.
    fn check(&self, spec: &TensorSpec) -> Result<(), ModelError> {
        if self.gguf.is_some() {
            return self.gguf_rows(&spec.name).map(|_| ());
        }
        let Some(quantized) = &self.quantized else {
            let (file, stored) = self.stored(&spec.name)?;
            return file.check(stored, &spec.shape);
        };
        match quantized.matrix(&self.files, self.settled(&spec.name))? {
            Some(matrix) if matrix.shape == spec.shape => Ok(()),
            Some(matrix) => Err(ModelError::WrongShape {
                path: self.place(&spec.name),
                tensor: spec.name.clone(),
                found: matrix.shape,
                expected: spec.shape.clone(),
            }),
            None => {
                let (file, stored) = self.stored(&spec.name)?;
                file.check(stored, &spec.shape)
            }
        }
    }

    /// The rows of a tensor of a GGUF file; `None` where the model is not in one.
    pub(super) fn gguf_rows(&self, name: &str) -> Result<Option<GgufRows<'_>>, ModelError> {
        let Some(gguf) = &self.gguf else {
            return Ok(None);
        };
        let name = self.settled(name);
        let specs = self.config.tensors();
        let spec = specs.iter().find(|spec| spec.name == name);
        let shape = spec.map_or(&[] as &[usize], |spec| &spec.shape);
        let heads = [self.config.heads, self.config.kv_heads];
        gguf.rows(name, shape, heads).map(Some)
    }

    /// A tensor that must be decoded; `None` where it is stored as plain numbers.
    fn decoded<'a>(&'a self, name: &'a str) -> Result<Option<DecodedTensor<'a>>, ModelError> {
        let name = self.settled(name);
        if let (Some(gguf), Some(rows)) = (&self.gguf, self.gguf_rows(name)?) {
            return Ok(Some(DecodedTensor {
                path: gguf.path(name),
                name,
                shape: rows.shape(),
                rows: Box::new(rows),
            }));
        }
        let Some(quantized) = &self.quantized else {
            return Ok(None);
        };
        let Some(matrix) = quantized.matrix(&self.files, name)? else {
            return Ok(None);
        };
        let home = quantized
            .home(name)
            .and_then(|home| self.files.get(home.file));
        Ok(Some(DecodedTensor {
            path: home.map_or(&self.dir, |file| file.path()),
            name,
            shape: matrix.shape.clone(),
            rows: matrix.reader()?,
        }))
    }

    /// Whether a tensor is packed, so that its numbers have to be decoded.
    pub fn is_packed(&self, name: &str) -> bool {
        let name = self.settled(name);
        let is_block = |rows: GgufRows| dtype_of(&rows).is_none();
        match &self.gguf {
            Some(_) => self.gguf_rows(name).ok().flatten().is_some_and(is_block),
            None => self
                .quantized
                .iter()
                .flat_map(Quantized::names)
                .any(|packed| packed == name),
        }
    }

    /// Whether `name` is a bias of zeros beside a packed weight: old tools add one to every module.
    pub(super) fn is_empty_bias(&self, name: &str) -> bool {
        let Some(module) = name.strip_suffix(".bias") else {
            return false;
        };
        self.is_packed(&format!("{module}.weight"))
            && self
                .bytes(name)
                .is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    }

    /// The name of the tensor that `name` stands for: the embedding for a tied head.
    fn settled<'a>(&'a self, name: &'a str) -> &'a str {
        let [embed, head] = &self.ends;
        match name == head && self.config.tie_embeddings {
            true => embed,
            false => name,
        }
    }

    /// The file of a tensor of the model, and the tensor's name there.
    pub(super) fn stored(&self, name: &str) -> Result<(&TensorFile, &str), ModelError> {
        self.found(self.settled(name))
    }

    /// The file that holds the tensor `name` itself, and its name there.
    pub(super) fn found(&self, name: &str) -> Result<(&TensorFile, &str), ModelError> {
        let home = self.homes.get(name);
        let found = home.and_then(|home| Some((self.files.get(home.file)?, home.stored.as_str())));
        found.ok_or_else(|| ModelError::MissingTensor {
            path: self.place(name),
            tensor: name.to_string(),
        })
    }

    /// The path for an error about a tensor: its file, or the index where none of several files has
    /// it.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        if let Some(gguf) = &self.gguf {
            return gguf.path(name).to_path_buf();
        }
        let packed = || self.quantized.as_ref()?.home(name);
        let home = self.homes.get(name).or_else(packed);
        let home = home.and_then(|home| self.files.get(home.file));
        match (home, self.files.as_slice()) {
            (Some(file), _) | (None, [file]) => file.path().to_path_buf(),
            (None, _) => self.dir.join(INDEX),
        }
    }
}

/// The names of embedding and head.
fn ends(config: &DecoderConfig) -> [String; 2] {
    let parts = config.parts();
    [parts.embed_weight(), parts.head_weight()]
}

/// The dtype of rows that are stored as plain numbers; `None` for packed ones.
fn dtype_of(rows: &GgufRows) -> Option<Dtype> {
    match rows.format {
        BlockFormat::F32 => Some(Dtype::F32),
        BlockFormat::F16 => Some(Dtype::F16),
        BlockFormat::Bf16 => Some(Dtype::BF16),
        _ => None,
    }
}
