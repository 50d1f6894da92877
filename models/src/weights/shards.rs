//! The files that hold a model's tensors: one, or shards with their index.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use super::TensorFile;
use crate::config::PartNames;
use crate::error::ModelError;
use crate::json::{self, shown};

/// How the weights of a folder lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// All in one file.
    pub(crate) single: &'static str,
    /// What lists the files where they are several.
    pub(crate) index: &'static str,
    open: fn(&Path) -> Result<TensorFile, ModelError>,
}

impl Layout {
    /// The layouts, in the order in which they are looked for: pickles only without safetensors.
    pub(crate) const ALL: [Layout; 2] = [
        Layout {
            single: "model.safetensors",
            index: "model.safetensors.index.json",
            open: TensorFile::open,
        },
        Layout {
            single: "pytorch_model.bin",
            index: "pytorch_model.bin.index.json",
            open: TensorFile::open_pickle,
        },
    ];

    /// That of safetensors.
    pub(crate) const SAFETENSORS: Layout = Layout::ALL[0];

    /// That of a folder, if it has weights by one of these names.
    pub(super) fn of(dir: &Path) -> Option<Layout> {
        let is_there =
            |layout: &Layout| dir.join(layout.single).is_file() || dir.join(layout.index).is_file();
        Layout::ALL.into_iter().find(is_there)
    }
}

/// Where a tensor is.
#[derive(Clone, Debug)]
pub(super) struct TensorHome {
    /// Its file, by index.
    pub(super) file: usize,
    /// Its name in the file.
    pub(super) stored: String,
}

/// Files, and the home of each tensor by its name in the whole model.
pub(super) type Files = (Vec<TensorFile>, BTreeMap<String, TensorHome>);

/// Opens `model.safetensors`, or else the shards of `model.safetensors.index.json`, as transformers
/// has it; without them `pytorch_model.bin` or its shards, or the one file of a folder that ends
/// with `.pth`. The names of a model that was saved without its head lack the prefix of the whole
/// model, `model.` in most families; they get it here, as there.
pub(super) fn open(dir: &Path, parts: &PartNames) -> Result<Files, ModelError> {
    let (files, stored) = match Layout::of(dir) {
        Some(layout) if dir.join(layout.single).is_file() => {
            alone((layout.open)(&dir.join(layout.single))?)
        }
        Some(layout) => open_shards(dir, layout)?,
        None => match lone_pth(dir) {
            Some(path) => alone(TensorFile::open_pickle(&path)?),
            None => {
                return Err(ModelError::NoWeights {
                    path: dir.to_path_buf(),
                    instead: instead(dir),
                });
            }
        },
    };
    let trunk = parts.trunk();
    let bare = !stored.keys().any(|name| name.starts_with(trunk));
    let heads = ["lm_head", parts.head];
    let is_head = |name: &str| heads.iter().any(|head| name == format!("{head}.weight"));
    let whole = |name: &str| match bare && !is_head(name) {
        true => format!("{trunk}{name}"),
        false => name.to_string(),
    };
    let homes = stored.into_iter().map(|(stored, file)| {
        let name = whole(&stored);
        (name, TensorHome { file, stored })
    });
    Ok((files, homes.collect()))
}

type Stored = (Vec<TensorFile>, BTreeMap<String, usize>);

fn alone(file: TensorFile) -> Stored {
    let homes = file.names().map(|name| (name.to_string(), 0)).collect();
    (vec![file], homes)
}

/// The file of a folder that ends with `.pth`, where it is the only one.
fn lone_pth(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut paths = paths.filter(|path| path.extension().is_some_and(|end| end == "pth"));
    let first = paths.next();
    first.filter(|path| path.is_file() && paths.next().is_none())
}

fn open_shards(dir: &Path, layout: Layout) -> Result<Stored, ModelError> {
    let path = dir.join(layout.index);
    let map = weight_map(&path)?;
    let names = distinct(&map);
    let files = names
        .iter()
        .map(|name| (layout.open)(&dir.join(name)))
        .collect::<Result<Vec<_>, ModelError>>()?;
    let mut homes = BTreeMap::new();
    for (tensor, shard) in &map {
        if let Ok(index) = names.binary_search(&shard.as_str()) {
            // The index may list a tensor that the shard lacks; the error then names the shard.
            files[index].bytes(tensor)?;
            homes.insert(tensor.clone(), index);
        }
    }
    // transformers reads all tensors of the shards, whether the index lists them or not.
    for (index, file) in files.iter().enumerate() {
        for name in file.names() {
            let home = *homes.entry(name.to_string()).or_insert(index);
            if home != index {
                return Err(ModelError::BadWeightsFile {
                    path: file.path().to_path_buf(),
                    reason: format!(
                        "it has the tensor `{name}`, which {} says is in {}: one of the two \
                         is left over; download the model again",
                        layout.index, names[home]
                    ),
                });
            }
        }
    }
    Ok((files, homes))
}

/// What a folder without supported weights has instead, and what to do with it.
fn instead(dir: &Path) -> String {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    other_weights(names).map_or(String::new(), |found| format!("; {found}"))
}

/// Names the first weights of another format among files, and says what to do with them.
pub(crate) fn other_weights(names: impl Iterator<Item = String>) -> Option<String> {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    let of = |ends: &[&str]| {
        let found = names
            .iter()
            .find(|name| ends.iter().any(|end| name.ends_with(end)));
        found.cloned()
    };
    if let Some(name) = of(&[".bin", ".pt", ".pth", ".ckpt"]) {
        return Some(format!(
            "{name} is there: of pickles pytorch_model.bin, its shards with their index, and one \
             file .pth alone are read, by the names of transformers; of any other, load the model \
             with transformers and save it again (save_pretrained), which writes safetensors"
        ));
    }
    if let Some(name) = of(&[".gguf"]) {
        return Some(format!("{name} is there: name that file as the model"));
    }
    of(&[".safetensors"]).map(|name| {
        format!(
            "{name} is there: rename it to {} where it is the whole model, by the names of \
             transformers",
            Layout::SAFETENSORS.single
        )
    })
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

/// Reads the index, a map from tensors' names to those of their shards. Its `metadata` has only
/// totals.
fn weight_map(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    let text = fs::read(path).map_err(ModelError::io("read", path))?;
    let index = json::object(path, &text)?;
    let known = ["weight_map", "metadata"];
    if let Some((key, value)) = index.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        return Err(ModelError::UnusableKey {
            path: path.to_path_buf(),
            key: key.clone(),
            found: shown(value),
            reason: "an index of weights has weight_map and metadata alone: remove the key"
                .to_string(),
        });
    }
    let bad = |found: String, expected: &str| ModelError::BadValue {
        path: path.to_path_buf(),
        key: "weight_map",
        found,
        expected: expected.to_string(),
    };
    let map: Option<&Map<String, Value>> = match index.get("weight_map") {
        None => {
            return Err(ModelError::MissingKey {
                path: path.to_path_buf(),
                key: "weight_map",
            });
        }
        Some(value) => value.as_object(),
    };
    let map = map.ok_or_else(|| bad(shown(&index["weight_map"]), "must be an object"))?;
    let mut shards = BTreeMap::new();
    for (tensor, value) in map {
        let shard = value.as_str().unwrap_or_default();
        // A path would let a downloaded model read files outside its folder.
        let mut parts = Path::new(shard).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err(bad(
                shown(value),
                "a shard must be a file of the same folder: name it without a path",
            ));
        }
        shards.insert(tensor.clone(), shard.to_string());
    }
    Ok(shards)
}
