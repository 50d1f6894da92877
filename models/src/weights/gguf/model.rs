//! The GGUF files of one model.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_kernels::packed::BlockFormat;
use memmap2::Mmap;
use serde_json::{Map, Value};

use super::config;
use super::container::{GgufFile, GgufTensor, unread};
use super::names::{self, RowOrder};
use super::tokenizer;
use crate::error::ModelError;
use crate::weights::rows::RowReader;

/// The most parts that a model may have.
const PARTS_MAX: u64 = 10_000;

/// A model in GGUF: its files, and its tensors by their names in transformers.
#[derive(Debug)]
pub(in crate::weights) struct GgufModel {
    files: Vec<GgufFile>,
    architecture: String,
    tensors: BTreeMap<String, Home>,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
struct Home {
    file: usize,
    /// Its name in the file.
    stored: String,
    order: RowOrder,
}

impl GgufModel {
    /// Opens a file, and the other parts of its model where it is the first of several.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the key or tensor.
    pub(in crate::weights) fn open(path: &Path) -> Result<Self, ModelError> {
        let first = GgufFile::open(path)?;
        let key = "general.architecture";
        let architecture = first.get(key).and_then(|value| value.text());
        let architecture = architecture
            .ok_or_else(|| first.bad_key(key, "it must name the architecture"))?
            .to_string();
        let files = parts(first)?;
        let mut tensors = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            for stored in file.tensors.keys() {
                let named = names::of(&architecture, stored);
                // Tensors that no model of the family has keep their names; the check of unused
                // tensors refuses them.
                let (name, order) =
                    named.map_or((stored.clone(), RowOrder::Same), |t| (t.name, t.order));
                let home = Home {
                    file: index,
                    stored: stored.clone(),
                    order,
                };
                if tensors.insert(name, home).is_some() {
                    return Err(ModelError::BadGguf {
                        path: file.path().to_path_buf(),
                        reason: format!(
                            "it has the tensor `{stored}`, and so has another part of the model: \
                             download its parts again"
                        ),
                    });
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

    /// Its metadata as the keys of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is missing, or cannot be used.
    pub(in crate::weights) fn config(&self) -> Result<Map<String, Value>, ModelError> {
        config::of(&self.files[0], &self.architecture, |name| {
            self.tensors.contains_key(name)
        })
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
        names.filter(|name| *name != config::ROPE_FREQS)
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
        if tensor.shape != shape {
            return Err(ModelError::WrongShape {
                path: path(),
                tensor: home.stored.clone(),
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let cols = shape.last().copied().unwrap_or(1);
        let first = shape.first().copied().unwrap_or(1);
        let head_rows = match home.order {
            RowOrder::Same => None,
            // A bias is stored as one row, whose elements have the order of its weight's rows.
            RowOrder::QueryHeads => Some(first / heads[0].max(1)),
            RowOrder::KeyHeads => Some(first / heads[1].max(1)),
        };
        Ok(GgufRows {
            format,
            cols,
            rows: shape.iter().rev().skip(1).product(),
            is_vector: shape.len() < 2,
            head_rows,
            bytes: file.bytes(tensor),
            map: file.map(),
            place: tensor.bytes,
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

/// Whether a file is a whole model or the first part of one.
fn is_first(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".gguf") else {
        return false;
    };
    match part_name(stem) {
        Some((_, number, _)) => number == 1,
        None => true,
    }
}

/// Splits `name-00001-of-00003` into the name, the number of the part, and the number of parts.
fn part_name(stem: &str) -> Option<(&str, u64, u64)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let number_of = |text: &str| (text.len() == 5).then(|| text.parse().ok()).flatten();
    Some((name, number_of(number)?, number_of(count)?))
}

/// The names of all parts of a model, from the name of one of them.
#[cfg(feature = "hub")]
pub(crate) fn gguf_parts(file: &str) -> Vec<String> {
    let named = file.strip_suffix(".gguf").and_then(part_name);
    match named.filter(|(_, _, count)| *count <= PARTS_MAX) {
        None => vec![file.to_string()],
        Some((name, _, count)) => (1..=count)
            .map(|number| format!("{name}-{number:05}-of-{count:05}.gguf"))
            .collect(),
    }
}

/// The first file and the other parts of its model.
fn parts(first: GgufFile) -> Result<Vec<GgufFile>, ModelError> {
    let whole = |file: &GgufFile, key: &str| file.get(key).and_then(|value| value.whole());
    let count = match first.get("split.count") {
        None => return Ok(vec![first]),
        Some(value) => value
            .whole()
            .filter(|count| (1..=PARTS_MAX).contains(count)),
    };
    let count =
        count.ok_or_else(|| first.bad_key("split.count", "it must be a number of parts"))?;
    if whole(&first, "split.no") != Some(0) {
        return Err(first.bad_key("split.no", "name the first part of the model, which has 0"));
    }
    if count == 1 {
        return Ok(vec![first]);
    }
    let path = first.path().to_path_buf();
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let named = stem
        .and_then(part_name)
        .filter(|named| named.1 == 1 && named.2 == count);
    let Some((name, _, _)) = named else {
        let reason = format!(
            "the file must have the name NAME-00001-of-{count:05}.gguf, as its parts have: rename \
             it"
        );
        return Err(first.bad_key("split.count", reason));
    };
    let total = whole(&first, "split.tensors.count");
    let mut files = vec![first];
    for number in 1..count {
        let next = path.with_file_name(format!("{name}-{:05}-of-{count:05}.gguf", number + 1));
        let next = GgufFile::open(&next)?;
        if whole(&next, "split.no") != Some(number) || whole(&next, "split.count") != Some(count) {
            let reason = format!("it must be {number}, of {count} parts: download the parts again");
            return Err(next.bad_key("split.no", reason));
        }
        files.push(next);
    }
    let found: usize = files.iter().map(|file| file.tensors.len()).sum();
    if total.is_some_and(|total| total != found as u64) {
        let reason = format!("the parts have {found} tensors: download them again");
        return Err(files[0].bad_key("split.tensors.count", reason));
    }
    Ok(files)
}

/// A shared owner of bytes, and a range of them.
type SharedRange = (Arc<dyn AsRef<[u8]> + Send + Sync>, Range<usize>);

/// The rows of a tensor of a GGUF file, in the order of transformers.
#[derive(Clone, Copy, Debug)]
pub(in crate::weights) struct GgufRows<'a> {
    pub(in crate::weights) format: BlockFormat,
    /// Numbers in a row; a vector is one row.
    cols: usize,
    rows: usize,
    is_vector: bool,
    /// Rows of a head, where the file interleaves the two halves of each head.
    head_rows: Option<usize>,
    pub(in crate::weights) bytes: &'a [u8],
    map: &'a Arc<Mmap>,
    /// The range of its bytes in the file.
    pub(in crate::weights) place: (usize, usize),
}

impl<'a> GgufRows<'a> {
    /// The shape of the tensor.
    pub(in crate::weights) fn shape(&self) -> Vec<usize> {
        match self.is_vector {
            true => vec![self.cols],
            false => vec![self.rows, self.cols],
        }
    }

    /// Gives the stored bytes of its rows, in the order of transformers.
    pub(in crate::weights) fn each_stored(
        &self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let width = self.format.bytes();
        match self.is_vector {
            true => (0..self.cols)
                .try_for_each(|i| take(&self.bytes[self.stored(i) * width..][..width])),
            false => (0..self.rows).try_for_each(|row| take(self.row(row))),
        }
    }

    /// The bytes of all rows in the order of transformers: a part of the map, or a reordered copy.
    pub(in crate::weights) fn shared(&self) -> SharedRange {
        if self.is_in_order() {
            return (self.map.clone(), self.place.0..self.place.1);
        }
        let rows = (0..self.rows).flat_map(|row| self.row(row));
        let moved: Vec<u8> = rows.copied().collect();
        let all = 0..moved.len();
        (Arc::new(moved), all)
    }

    /// Whether the file has the rows in the order of transformers.
    pub(in crate::weights) fn is_in_order(&self) -> bool {
        self.head_rows.is_none()
    }

    /// The bytes of a row.
    pub(in crate::weights) fn row(&self, row: usize) -> &'a [u8] {
        let width = self.format.row_bytes(self.cols).unwrap_or(0);
        &self.bytes[self.stored(row) * width..][..width]
    }

    /// The index of a row in the file, where the rows of the two halves of a head alternate.
    fn stored(&self, row: usize) -> usize {
        let Some(rows) = self.head_rows.filter(|rows| *rows > 1) else {
            return row;
        };
        let (head, at) = (row / rows, row % rows);
        let half = rows / 2;
        head * rows + 2 * (at % half) + at / half
    }
}

impl RowReader for GgufRows<'_> {
    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        if !self.is_vector {
            for (row, out) in rows.zip(out.chunks_mut(self.cols.max(1))) {
                self.format.decode(self.row(row), out);
            }
            return;
        }
        if self.is_in_order() {
            self.format.decode(self.bytes, out);
            return;
        }
        let mut stored = vec![0.0; out.len()];
        self.format.decode(self.bytes, &mut stored);
        for (i, out) in out.iter_mut().enumerate() {
            *out = stored[self.stored(i)];
        }
    }
}
