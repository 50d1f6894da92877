//! A Hugging Face model folder: its configuration, and its weights in one file or in shards.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use concord_kernels::Tensor;
use safetensors::Dtype;

use super::{TakeRows, TensorFile};
use crate::config::DecoderConfig;
use crate::error::ModelError;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// A model folder whose every needed tensor has been found, with the right shape and a readable
/// format. Opening reads headers only; [`ModelFolder::load`] touches the bytes of one tensor.
#[derive(Debug)]
pub struct ModelFolder {
    dir: PathBuf,
    config: DecoderConfig,
    files: Vec<TensorFile>,
    /// Tensor name to the index of its file.
    homes: BTreeMap<String, usize>,
}

impl ModelFolder {
    /// Opens a folder with `config.json` and either `model.safetensors` or shards with their
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key or tensor.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let config = DecoderConfig::from_folder(dir)?;
        let (files, homes) = if dir.join(SINGLE).is_file() {
            open_single(dir)?
        } else {
            open_shards(dir)?
        };
        let folder = Self {
            dir: dir.to_path_buf(),
            config,
            files,
            homes,
        };
        for spec in folder.config.tensors() {
            folder.file_of(&spec.name)?.check(&spec.name, &spec.shape)?;
        }
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
    /// embedding, whatever the file holds under that name, as in transformers.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the tensor; [`ModelError::BadTensor`] for NaN and
    /// infinity, with the element.
    pub fn load(&self, name: &str) -> Result<Tensor, ModelError> {
        let name = self.untied(name);
        self.file_of(name)?.load(name)
    }

    /// As [`Self::load`], some rows of a matrix at a time.
    ///
    /// # Errors
    /// As [`Self::load`]; and what `take` says.
    pub fn load_rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let name = self.untied(name);
        self.file_of(name)?.load_rows(name, take)
    }

    /// The bytes of a tensor as they lie in its file: what a content address is taken of.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn bytes(&self, name: &str) -> Result<&[u8], ModelError> {
        let name = self.untied(name);
        self.file_of(name)?.bytes(name)
    }

    /// The file of a tensor, and where in it the bytes lie.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn place(&self, name: &str) -> Result<(&Path, Range<usize>), ModelError> {
        let name = self.untied(name);
        let file = self.file_of(name)?;
        Ok((file.path(), file.place(name)?))
    }

    /// The number format of a tensor in its file, or `None` where there is no such tensor.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        let name = self.untied(name);
        self.file_of(name).ok()?.dtype(name)
    }

    fn untied<'a>(&self, name: &'a str) -> &'a str {
        if name == HEAD && self.config.tie_embeddings {
            EMBED
        } else {
            name
        }
    }

    fn file_of(&self, name: &str) -> Result<&TensorFile, ModelError> {
        let file = self
            .homes
            .get(name)
            .and_then(|index| self.files.get(*index));
        file.ok_or_else(|| ModelError::MissingTensor {
            path: match self.files.as_slice() {
                [only] => only.path().to_path_buf(),
                _ => self.dir.join(INDEX),
            },
            tensor: name.to_string(),
        })
    }
}

type Files = (Vec<TensorFile>, BTreeMap<String, usize>);

fn open_single(dir: &Path) -> Result<Files, ModelError> {
    let file = TensorFile::open(&dir.join(SINGLE))?;
    let homes = file.names().map(|name| (name.to_string(), 0)).collect();
    Ok((vec![file], homes))
}

fn open_shards(dir: &Path) -> Result<Files, ModelError> {
    let path = dir.join(INDEX);
    if !path.is_file() {
        return Err(ModelError::NoWeights {
            path: dir.to_path_buf(),
        });
    }
    let map = weight_map(&path)?;
    let names = distinct(&map);
    let files = names
        .iter()
        .map(|name| TensorFile::open(&dir.join(name)))
        .collect::<Result<Vec<_>, ModelError>>()?;
    let mut homes = BTreeMap::new();
    for (tensor, shard) in &map {
        if let Ok(index) = names.binary_search(&shard.as_str()) {
            // The index may promise what the shard lacks: say so with the shard's name.
            files[index].bytes(tensor)?;
            homes.insert(tensor.clone(), index);
        }
    }
    Ok((files, homes))
}

/// The names of the shards that an index lists, sorted; each is a plain file name.
#[cfg(feature = "hub")]
pub(crate) fn shard_names(index: &Path) -> Result<Vec<String>, ModelError> {
    let map = weight_map(index)?;
    Ok(distinct(&map).into_iter().map(str::to_string).collect())
}

fn distinct(map: &BTreeMap<String, String>) -> Vec<&str> {
    let mut names: Vec<&str> = map.values().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Reads the index: tensor name to the name of its shard.
fn weight_map(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs::read(path).map_err(ModelError::io("read", path))?;
    let index: Index = serde_json::from_slice(&text).map_err(ModelError::json(path))?;
    for shard in index.weight_map.values() {
        // A shard outside the folder would let a downloaded model read any file of this machine.
        let mut parts = Path::new(shard).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err(ModelError::BadValue {
                path: path.to_path_buf(),
                key: "weight_map",
                found: format!("{shard:?}"),
                expected: "a shard must be a file of the same folder".to_string(),
            });
        }
    }
    Ok(index.weight_map)
}
