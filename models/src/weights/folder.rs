//! A model on disk, a Hugging Face folder or a GGUF file: its configuration, and its weights in one
//! file or several.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use concord_kernels::Tensor;
use safetensors::Dtype;

use super::decoded::DecodedTensor;
use super::gguf::{GgufModel, GgufRows};
use super::packed::PackedMatrix;
use super::quantized::{self, Quantized};
use super::quantizing::Quantizing;
use super::shards::{self, Layout, TensorHome};
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
    pub(super) quantized: Option<Quantized>,
    /// What is quantised as it is read.
    pub(super) load_in: Option<Quantizing>,
    /// The names of embedding and head.
    ends: [String; 2],
    /// The shape of each tensor that the model needs.
    shapes: BTreeMap<String, Vec<usize>>,
    pub(super) gguf: Option<GgufModel>,
}

impl ModelFolder {
    /// Opens a model: a folder with `config.json` and either `model.safetensors` or shards with
    /// their `model.safetensors.index.json`; a GGUF file, the first of several parts too; or a
    /// folder that has such a file and no safetensors. Where there is neither, `pytorch_model.bin`
    /// or its shards, or one file `.pth`, of which no code is run. What lies beside a GGUF file
    /// counts only where the folder is named: then its `config.json` and `tokenizer.json` are taken
    /// for those that the file has.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key or tensor.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            return Self::open_gguf(path, path);
        }
        let is_first = |layout: Layout| layout.index == Layout::SAFETENSORS.index;
        if !Layout::of(path).is_some_and(is_first)
            && path.is_dir()
            && let Some(file) = GgufModel::in_folder(path)?
        {
            return Self::open_gguf(path, &file);
        }
        let (config, config_json) = DecoderConfig::read(path)?;
        let (files, mut homes) = shards::open(path, config.parts())?;
        let quantized = Quantized::find(path, &config_json, &files, &mut homes)?;
        Self {
            dir: path.to_path_buf(),
            ends: ends(&config),
            shapes: BTreeMap::new(),
            config,
            // The weights are given as decoded numbers, not packed.
            config_json: without_key(&config_json, "quantization_config"),
            files,
            homes,
            quantized,
            load_in: None,
            gguf: None,
        }
        .checked()
    }

    /// Opens a GGUF file; `named` is the path that the user gave, which may be its folder.
    fn open_gguf(named: &Path, file: &Path) -> Result<Self, ModelError> {
        let gguf = GgufModel::open(file)?;
        let (of_file, of_file_json) = gguf.config()?;
        let (config, config_json) = match named.join("config.json").is_file() {
            true => {
                let (config, text) = DecoderConfig::read(named)?;
                quantized::check_unpacked(named, &text, file)?;
                gguf.check_beside(&named.join("config.json"), &config, &of_file)?;
                (config, text)
            }
            false => (of_file, of_file_json),
        };
        Self {
            dir: named.to_path_buf(),
            ends: ends(&config),
            shapes: BTreeMap::new(),
            config,
            config_json,
            files: Vec::new(),
            homes: BTreeMap::new(),
            quantized: None,
            load_in: None,
            gguf: Some(gguf),
        }
        .checked()
    }

    /// The model, once its head is settled, and all that it needs is there, and nothing else.
    fn checked(mut self) -> Result<Self, ModelError> {
        let specs = self.config.tensors().into_iter();
        self.shapes = specs.map(|spec| (spec.name, spec.shape)).collect();
        let [_, head] = &self.ends;
        // Of a tied model, too: the weights may have a head of their own.
        let of_head = vec![self.config.vocab, self.config.hidden];
        self.shapes.insert(head.clone(), of_head);
        self.settle_head()?;
        for spec in self.config.tensors() {
            self.check(&spec)?;
        }
        self.check_unused()?;
        Ok(self)
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
        if let Some(format) = self.quantizes(name) {
            return self.load_quantized(name, format);
        }
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
        match self.quantizes(name) {
            Some(format) => self.quantized_rows(name, format, take),
            None => self.stored_rows(name, take),
        }
    }

    /// The rows of a tensor as its file has them.
    pub(super) fn stored_rows(
        &self,
        name: &str,
        take: &mut TakeRows<'_>,
    ) -> Result<(), ModelError> {
        if let Some(decoded) = self.decoded(name)? {
            return decoded.load_rows(take);
        }
        let (file, stored) = self.stored(name)?;
        file.load_rows(stored, take)
    }

    /// The bytes of a tensor as they lie in its safetensors file.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], also for a packed weight, which has no bytes of its own.
    pub fn bytes(&self, name: &str) -> Result<&[u8], ModelError> {
        let (file, stored) = self.stored(name)?;
        file.bytes(stored)
    }

    /// The format of the numbers of a tensor: that of its file, or F32 for what is packed. `None`
    /// where there is no such tensor.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        if self.quantizes(name).is_some() {
            return Some(Dtype::F32);
        }
        if self.gguf.is_some() {
            let rows = self.gguf_rows(name).ok()??;
            return Some(rows.dtype().unwrap_or(Dtype::F32));
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
        self.own_gguf_rows(self.settled(name))
    }

    /// The same of the tensor of just this name.
    fn own_gguf_rows(&self, name: &str) -> Result<Option<GgufRows<'_>>, ModelError> {
        let Some(gguf) = &self.gguf else {
            return Ok(None);
        };
        let shape = self.shapes.get(name).map_or(&[] as &[usize], Vec::as_slice);
        let heads = [self.config.heads, self.config.kv_heads];
        gguf.rows(name, shape, heads).map(Some)
    }

    /// A tensor that must be decoded; `None` where it is stored as plain numbers.
    fn decoded<'a>(&'a self, name: &'a str) -> Result<Option<DecodedTensor<'a>>, ModelError> {
        self.own_decoded(self.settled(name))
    }

    /// The same of the tensor of just this name.
    pub(super) fn own_decoded<'a>(
        &'a self,
        name: &'a str,
    ) -> Result<Option<DecodedTensor<'a>>, ModelError> {
        if let (Some(gguf), Some(rows)) = (&self.gguf, self.own_gguf_rows(name)?) {
            return Ok(Some(DecodedTensor {
                path: gguf.path(name),
                name,
                shape: rows.shape(),
                rows: Box::new(rows),
            }));
        }
        let Some(matrix) = self.own_packed(name)? else {
            return Ok(None);
        };
        let mut files = self.packed_files(name);
        Ok(Some(DecodedTensor {
            path: files.next().map_or(&self.dir, |(file, _)| file.path()),
            name,
            shape: matrix.shape.clone(),
            rows: matrix.reader()?,
        }))
    }

    /// The matrix of just this name, where it lies as the parts of a packed one.
    pub(super) fn own_packed(&self, name: &str) -> Result<Option<PackedMatrix<'_>>, ModelError> {
        match &self.quantized {
            Some(quantized) => quantized.matrix(&self.files, name),
            None => Ok(None),
        }
    }

    /// The parts of a packed matrix: the file of each, and its name there.
    pub(super) fn packed_files(&self, name: &str) -> impl Iterator<Item = (&TensorFile, &str)> {
        let quantized = self.quantized.iter();
        let homes = quantized.flat_map(move |quantized| quantized.homes(name));
        homes.filter_map(|home| Some((self.files.get(home.file)?, home.stored.as_str())))
    }

    /// Whether a tensor is packed, so that its numbers have to be decoded.
    pub fn is_packed(&self, name: &str) -> bool {
        if self.quantizes(name).is_some() {
            return true;
        }
        let name = self.settled(name);
        let is_block = |rows: GgufRows| rows.dtype().is_none();
        match &self.gguf {
            Some(_) => self.gguf_rows(name).ok().flatten().is_some_and(is_block),
            None => (self.quantized.as_ref()).is_some_and(|quantized| quantized.has(name)),
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

    /// Whether the weights have a tensor of just this name, packed or not.
    pub(super) fn lies(&self, name: &str) -> bool {
        let packed = (self.quantized.as_ref()).is_some_and(|quantized| quantized.has(name));
        let in_gguf = (self.gguf.as_ref()).is_some_and(|gguf| gguf.has(name));
        packed || in_gguf || self.homes.contains_key(name)
    }

    /// The tensor that `name` stands for.
    pub(super) fn settled<'a>(&'a self, name: &'a str) -> &'a str {
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
            (None, _) => {
                let layout = Layout::of(&self.dir).unwrap_or(Layout::SAFETENSORS);
                self.dir.join(layout.index)
            }
        }
    }
}

/// The names of embedding and head.
fn ends(config: &DecoderConfig) -> [String; 2] {
    let parts = config.parts();
    [parts.embed_weight(), parts.head_weight()]
}
