//! The GGUF files of one model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::architectures::{self, Architecture};
use super::container::{GgufFile, GgufTensor, unread};
use super::names::{self, RowOrder, TensorName};
use super::parts::{check_first, is_first, parts};
use super::rows::GgufRows;
use super::{beside, config, tokenizer};
use crate::config::DecoderConfig;
use crate::error::ModelError;

/// More experts than any decoder has in a layer that is read, and in all: each gets a name.
const EXPERTS_MAX: usize = 1 << 10;
const NAMES_MAX: usize = 1 << 19;

/// A model in GGUF: its files, and its tensors by their names in transformers.
#[derive(Debug)]
pub(in crate::weights) struct GgufModel {
    files: Vec<GgufFile>,
    architecture: &'static Architecture,
    tensors: BTreeMap<String, Home>,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
struct Home {
    file: usize,
    /// Its name in the file.
    stored: String,
    order: RowOrder,
    has_one_added: bool,
    /// Of the experts in one tensor, which one it is, and of how many.
    expert: Option<(usize, usize)>,
}

impl GgufModel {
    /// Opens a file, and the other parts of its model where it is the first of several.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key or tensor.
    pub(in crate::weights) fn open(path: &Path) -> Result<Self, ModelError> {
        let first = GgufFile::open(path)?;
        check_first(&first)?;
        let key = "general.architecture";
        let architecture = first.get(key).and_then(|value| value.text());
        let architecture =
            architecture.ok_or_else(|| first.bad_key(key, "it must name the architecture"))?;
        let architecture =
            architectures::find(architecture).ok_or_else(|| ModelError::UnknownArchitecture {
                path: path.to_path_buf(),
                found: format!("{architecture} (in GGUF)"),
                known: format!(
                    "{} in GGUF, and more as safetensors",
                    architectures::names()
                ),
            })?;
        let files = parts(first)?;
        let mut tensors = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for stored in file.tensors.keys() {
                for (name, home) in homes(architecture, file, index, stored)? {
                    if tensors.insert(name, home).is_some() {
                        return Err(twice(file, stored));
                    }
                }
                if tensors.len() > NAMES_MAX {
                    let reason = format!("its experts have more than {NAMES_MAX} matrices");
                    return Err(bad(file, reason));
                }
            }
        }
        Ok(Self {
            files,
            architecture,
            tensors,
        })
    }

    /// The GGUF file in a folder, or the first of its parts; `None` where there is none.
    ///
    /// # Errors
    /// [`ModelError::NoWeights`] where there are several models.
    pub(in crate::weights) fn in_folder(folder: &Path) -> Result<Option<PathBuf>, ModelError> {
        let entries = fs::read_dir(folder).map_err(ModelError::io("list", folder))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.ends_with(".gguf") && is_first(name))
            .collect();
        names.sort_unstable();
        match names.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(folder.join(one))),
            several => Err(ModelError::NoWeights {
                path: folder.to_path_buf(),
                instead: format!(
                    "; {} GGUF files are there: name one of them as the model: {}",
                    several.len(),
                    several.join(", ")
                ),
            }),
        }
    }

    /// What its metadata say: the configuration, and the text of the `config.json` that they mean.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is missing, or cannot be used.
    pub(in crate::weights) fn config(&self) -> Result<(DecoderConfig, String), ModelError> {
        let file = &self.files[0];
        let metadata = config::of(file, self.architecture, |name| self.has(name))?;
        let mut text = serde_json::to_string_pretty(&Value::Object(metadata))
            .map_err(ModelError::json(file.path()))?;
        text.push('\n');
        Ok((DecoderConfig::from_metadata(file.path(), &text)?, text))
    }

    /// Refuses a `config.json` beside the file that says something else than its metadata do.
    ///
    /// # Errors
    /// [`ModelError`] naming the key.
    pub(in crate::weights) fn check_beside(
        &self,
        path: &Path,
        config: &DecoderConfig,
        of_file: &DecoderConfig,
    ) -> Result<(), ModelError> {
        beside::check(&self.files[0], self.architecture, path, [config, of_file])
    }

    /// Whether it has a tensor.
    pub(in crate::weights) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Its `tokenizer.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that cannot be used.
    pub(in crate::weights) fn tokenizer(&self) -> Result<[Value; 2], ModelError> {
        tokenizer::of(&self.files[0])
    }

    /// The paths of its files.
    pub(in crate::weights) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(GgufFile::path)
    }

    /// The names of its tensors, except those that become part of the configuration.
    pub(in crate::weights) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.tensors.keys().map(String::as_str);
        names.filter(|name| !config::is_made_of(self.architecture, name))
    }

    /// The file of a tensor; the first where it is in none.
    pub(in crate::weights) fn path(&self, name: &str) -> &Path {
        let file = self.tensors.get(name).map_or(0, |home| home.file);
        self.files[file].path()
    }

    /// The rows of a tensor. `heads` are the query and the key heads of the model.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing, of an unsupported format, or of another shape.
    pub(in crate::weights) fn rows(
        &self,
        name: &str,
        shape: &[usize],
        heads: [usize; 2],
    ) -> Result<GgufRows<'_>, ModelError> {
        let (file, tensor, home) = self.tensor(name)?;
        let path = || file.path().to_path_buf();
        let format = tensor.format.map_err(|kind| ModelError::WrongDtype {
            path: path(),
            tensor: home.stored.clone(),
            found: unread(kind),
            expected: "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, \
                       IQ4_XS and MXFP4",
        })?;
        let [expert, experts] = home.expert.map_or([0, 1], |(expert, of)| [expert, of]);
        let stated = match (home.expert, tensor.shape.as_slice()) {
            (Some(_), [_, of_one @ ..]) => of_one,
            (_, all) => all,
        };
        // A row of numbers may lie as a vector.
        let is_row = matches!((stated, shape), ([cols], [1, of_row]) if cols == of_row);
        if stated != shape && !is_row {
            return Err(ModelError::WrongShape {
                path: path(),
                tensor: home.stored.clone(),
                found: tensor.shape.clone(),
                expected: match home.expert {
                    Some((_, of)) => [&[of], shape].concat(),
                    None => shape.to_vec(),
                },
            });
        }
        let first = shape.first().copied().unwrap_or(1);
        let head_rows = match home.order {
            RowOrder::Same => None,
            // A bias is stored as one row, whose elements have the order of its weight's rows.
            RowOrder::QueryHeads => Some(first / heads[0].max(1)),
            RowOrder::KeyHeads => Some(first / heads[1].max(1)),
        };
        let width = (tensor.bytes.1 - tensor.bytes.0) / experts.max(1);
        let start = tensor.bytes.0 + expert * width;
        Ok(GgufRows {
            format,
            cols: shape.last().copied().unwrap_or(1),
            rows: shape.iter().rev().skip(1).product(),
            is_vector: shape.len() < 2,
            head_rows,
            has_one_added: home.has_one_added,
            bytes: file.map().get(start..start + width).unwrap_or(&[]),
            map: file.map(),
            place: (start, start + width),
        })
    }

    fn tensor(&self, name: &str) -> Result<(&GgufFile, &GgufTensor, &Home), ModelError> {
        let home = self.tensors.get(name);
        let found = home.and_then(|home| {
            let file = self.files.get(home.file)?;
            Some((file, file.tensors.get(&home.stored)?, home))
        });
        found.ok_or_else(|| ModelError::MissingTensor {
            path: self.files[0].path().to_path_buf(),
            tensor: name.to_string(),
        })
    }
}

/// The tensors of the model that a tensor of a file is, by their names: several, where it holds the
/// experts of a layer. One that is none of the model keeps its name, and is refused if unused.
fn homes(
    architecture: &Architecture,
    file: &GgufFile,
    index: usize,
    stored: &str,
) -> Result<Vec<(String, Home)>, ModelError> {
    let named = names::of(architecture, stored).unwrap_or_else(|| TensorName {
        name: stored.to_string(),
        of_expert: None,
        order: RowOrder::Same,
        has_one_added: false,
    });
    let home = |expert| Home {
        file: index,
        stored: stored.to_string(),
        order: named.order,
        has_one_added: named.has_one_added,
        expert,
    };
    let Some(end) = named.of_expert else {
        return Ok(vec![(named.name, home(None))]);
    };
    let shape = file
        .tensors
        .get(stored)
        .map_or(&[][..], |tensor| &tensor.shape);
    let count = match *shape {
        [count, _, _] if (1..=EXPERTS_MAX).contains(&count) => count,
        _ => {
            let reason = format!(
                "its tensor `{stored}` has the shape {shape:?}, and not that of 1 to {EXPERTS_MAX} \
                 experts with a matrix each; download the file again"
            );
            return Err(bad(file, reason));
        }
    };
    let of_expert = |expert: usize| {
        let name = format!("{}.{expert}.{end}", named.name);
        (name, home(Some((expert, count))))
    };
    Ok((0..count).map(of_expert).collect())
}

fn bad(file: &GgufFile, reason: String) -> ModelError {
    ModelError::BadGguf {
        path: file.path().to_path_buf(),
        reason,
    }
}

fn twice(file: &GgufFile, stored: &str) -> ModelError {
    let reason = format!(
        "it has the tensor `{stored}` twice, or another part of the model has it, too: download \
         the model again"
    );
    bad(file, reason)
}
