//! One file of weights, safetensors or of `torch.save`, mapped; only the bytes of the tensors asked
//! for are touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_kernels::Tensor;
use concord_kernels::packed::ByteOwner;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::entry::TensorEntry;
use super::{TakeRows, check_rows, pickle, runs_of_rows};
use crate::error::ModelError;

/// The supported dtypes of weights.
const WEIGHT_DTYPES: &str = "F32, F16 and BF16";

/// With what git has in place of a large file that was not fetched.
const GIT_LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Memory comes in pages of at most so many bytes on the machines that we know.
const PAGE_BYTES: usize = 1 << 16;

/// A file of tensors.
///
/// Invariant, checked when it is opened: each tensor lies within the file, with the bytes that its
/// shape and format need. Those of safetensors fill the file after its header without gap or
/// overlap; those of `torch.save` may share theirs.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Arc<Mmap>,
    entries: BTreeMap<String, TensorEntry>,
}

impl TensorFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::BadWeightsFile`] where it is cut short, overlaps
    /// itself or is not a safetensors file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let map = map(path)?;
        let bad = |reason: String| ModelError::BadWeightsFile {
            path: path.to_path_buf(),
            reason,
        };
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| bad(explain(&map, &error)))?;
        // The length word before the header.
        let start = header + size_of::<u64>();
        let entries = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let bytes = (start + info.data_offsets.0, start + info.data_offsets.1);
                (
                    name,
                    TensorEntry {
                        dtype: info.dtype,
                        shape: info.shape.clone(),
                        bytes,
                    },
                )
            })
            .collect();
        Ok(Self {
            path: path.to_path_buf(),
            map,
            entries,
        })
    }

    /// Maps a file of `torch.save`, and looks at what its pickle says, of which nothing is run.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::BadPickle`] where it is broken, or holds something else
    /// than a dictionary of tensors.
    pub fn open_pickle(path: &Path) -> Result<Self, ModelError> {
        let map = map(path)?;
        let entries = pickle::entries(&map).map_err(|reason| ModelError::BadPickle {
            path: path.to_path_buf(),
            reason,
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            map,
            entries,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The map of all its bytes.
    pub(super) fn map(&self) -> Arc<Mmap> {
        self.map.clone()
    }

    /// The names of its tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor, or `None` where the file has no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The number format of a tensor, or `None` where the file has no such tensor.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.entries.get(name).map(|entry| entry.dtype)
    }

    /// The bytes of a tensor as in the file: row-major, little-endian.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn bytes(&self, name: &str) -> Result<&[u8], ModelError> {
        self.entry(name)
            .map(|entry| &self.map[entry.bytes.0..entry.bytes.1])
    }

    /// Lets the system take back the memory of a tensor's bytes; they are read again from the file
    /// when they are next used. Does nothing for a tensor that the file does not have.
    pub fn forget(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            forget(&self.map, entry.bytes.0..entry.bytes.1);
        }
    }

    /// Where the bytes of a tensor lie, from the start of the file.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`].
    pub fn place(&self, name: &str) -> Result<Range<usize>, ModelError> {
        let entry = self.entry(name)?;
        Ok(entry.bytes.0..entry.bytes.1)
    }

    /// Refuses a tensor that is missing, has another shape, or is not F32, F16 or BF16.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the tensor.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        if entry.shape != shape {
            return Err(ModelError::WrongShape {
                path: self.path.clone(),
                tensor: name.to_string(),
                found: entry.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        match entry.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
            other => Err(self.wrong_dtype(name, other, WEIGHT_DTYPES)),
        }
    }

    /// A tensor of F32, F16 or BF16, converted to f32, which is exact.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the tensor; [`ModelError::BadTensor`] for NaN and
    /// infinity, with the element.
    pub fn load(&self, name: &str) -> Result<Tensor, ModelError> {
        let entry = self.entry(name)?;
        let bytes = &self.map[entry.bytes.0..entry.bytes.1];
        let data = widened(entry.dtype, bytes)
            .ok_or_else(|| self.wrong_dtype(name, entry.dtype, WEIGHT_DTYPES))?;
        let bad = |source| ModelError::BadTensor {
            path: self.path.clone(),
            source,
        };
        let tensor = Tensor::new(&entry.shape, data).map_err(bad)?;
        tensor.check_finite(name).map_err(bad)?;
        forget(&self.map, entry.bytes.0..entry.bytes.1);
        Ok(tensor)
    }

    /// As [`Self::load`], some rows at a time: the last axis is that of a row, and all others
    /// together count rows. What has one axis or none is given as a whole.
    ///
    /// # Errors
    /// As [`Self::load`], and the errors of `take`.
    pub fn load_rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        if entry.shape.len() < 2 {
            let tensor = self.load(name)?;
            return take(tensor.rows_cols().0, tensor);
        }
        let (axes, last) = entry.shape.split_at(entry.shape.len() - 1);
        let (rows, cols) = (axes.iter().product(), last[0]);
        let bad = |source| ModelError::BadTensor {
            path: self.path.clone(),
            source,
        };
        let (start, end) = entry.bytes;
        let width = (end - start).checked_div(rows).unwrap_or(0);
        for run in runs_of_rows(rows, cols) {
            let bytes = &self.map[start + run.start * width..start + run.end * width];
            let data = widened(entry.dtype, bytes)
                .ok_or_else(|| self.wrong_dtype(name, entry.dtype, WEIGHT_DTYPES))?;
            let some = Tensor::new(&[run.len(), cols], data).map_err(bad)?;
            check_rows(name, run.start * cols, &some).map_err(bad)?;
            forget(
                &self.map,
                start + run.start * width..start + run.end * width,
            );
            take(rows, some)?;
        }
        Ok(())
    }

    /// A tensor of I64, the dtype of token ids.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::WrongDtype`].
    pub fn load_i64(&self, name: &str) -> Result<Vec<i64>, ModelError> {
        let entry = self.entry(name)?;
        match entry.dtype {
            Dtype::I64 => Ok(self.map[entry.bytes.0..entry.bytes.1]
                .as_chunks()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b))
                .collect()),
            other => Err(self.wrong_dtype(name, other, "I64")),
        }
    }

    fn entry(&self, name: &str) -> Result<&TensorEntry, ModelError> {
        self.entries
            .get(name)
            .ok_or_else(|| ModelError::MissingTensor {
                path: self.path.clone(),
                tensor: name.to_string(),
            })
    }

    fn wrong_dtype(&self, name: &str, found: Dtype, expected: &'static str) -> ModelError {
        ModelError::WrongDtype {
            path: self.path.clone(),
            tensor: name.to_string(),
            found: format!("{found:?}"),
            expected,
        }
    }
}

/// Lets the system take back the memory that some bytes of a map were read into. Pages at their
/// ends stay: others may need them.
#[cfg(unix)]
pub(super) fn forget(map: &Mmap, bytes: Range<usize>) {
    let start = bytes.start.next_multiple_of(PAGE_BYTES);
    let end = bytes.end - bytes.end % PAGE_BYTES;
    if start < end {
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the map is of a file, shared and never written through: the pages come back from
        // the file with the next access, with what is in it.
        let advised = unsafe { map.unchecked_advise_range(advice, start, end - start) };
        // Where the system does not take the advice, nothing is lost but memory.
        let _ = advised;
    }
}

#[cfg(not(unix))]
pub(super) fn forget(_map: &Mmap, _bytes: Range<usize>) {}

/// The bytes of a file, mapped: they are in memory once for all processes that map it.
///
/// # Errors
/// [`ModelError::Io`].
pub fn map_bytes(path: &Path) -> Result<ByteOwner, ModelError> {
    Ok(map(path)?)
}

/// Maps a file of weights.
pub(super) fn map(path: &Path) -> Result<Arc<Mmap>, ModelError> {
    let file = File::open(path).map_err(ModelError::io("read", path))?;
    // SAFETY: the map is only read. If another process truncates the file meanwhile, a read of the
    // lost pages ends this process with SIGBUS; if it rewrites the file, other numbers are read, as
    // with any file. Concord itself replaces files only by renaming.
    let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io("map", path))?;
    match map.starts_with(GIT_LFS) {
        true => Err(ModelError::GitLfsPointer {
            path: path.to_path_buf(),
        }),
        false => Ok(Arc::new(map)),
    }
}

/// F32, F16 or BF16 elements, little-endian, as f32, which is exact. `None` for other dtypes.
pub(super) fn widened(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => {
            let words = bytes.as_chunks().0.iter();
            Some(words.map(|b| f32::from_le_bytes(*b)).collect())
        }
        Dtype::F16 => Some(widen_f16(bytes)),
        Dtype::BF16 => {
            let halves = bytes.as_chunks().0.iter();
            Some(halves.map(|b| bf16::from_le_bytes(*b).to_f32()).collect())
        }
        _ => None,
    }
}

/// f16 elements, little-endian, as f32, which is exact. They are converted in slices, for which
/// processors have instructions.
fn widen_f16(bytes: &[u8]) -> Vec<f32> {
    const SLICE: usize = 2_048;
    let mut wide = vec![0.0; bytes.len() / 2];
    let mut halves = [f16::ZERO; SLICE];
    for (bytes, wide) in bytes.chunks(2 * SLICE).zip(wide.chunks_mut(SLICE)) {
        for (half, pair) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*pair);
        }
        halves[..wide.len()].convert_to_f32_slice(wide);
    }
    wide
}

/// What to do about a file that is broken.
const AGAIN: &str = "download the file again";

/// The reason as a sentence; for a truncated file, with the first tensor that is lost.
fn explain(map: &[u8], error: &safetensors::SafeTensorError) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::HeaderTooSmall => format!("it has fewer than 8 bytes; {AGAIN}"),
        E::InvalidHeaderLength => {
            format!(
                "it is cut short within its header ({} bytes), or is no such file; {AGAIN}",
                map.len()
            )
        }
        E::InvalidOffset(name) => {
            format!("the tensor `{name}` overlaps the one before it, or leaves a gap; {AGAIN}")
        }
        E::TensorInvalidInfo => {
            format!("a tensor has another number of bytes than its shape and format need; {AGAIN}")
        }
        E::MetadataIncompleteBuffer => lost_tensor(map).unwrap_or_else(|| {
            format!(
                "its {} bytes are more than its header accounts for; {AGAIN}",
                map.len()
            )
        }),
        other => format!("{other}; {AGAIN}"),
    }
}

/// The first tensor that ends beyond the end of the file, as a sentence.
fn lost_tensor(map: &[u8]) -> Option<String> {
    let (length, rest) = map.split_first_chunk::<8>()?;
    let header = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(rest.get(..header)?).ok()?;
    let have = (rest.len() - header) as u64;
    let end = |value: &serde_json::Value| value.get("data_offsets")?.get(1)?.as_u64();
    let lost = object
        .iter()
        .filter_map(|(name, value)| Some((end(value)?, name)));
    let (_, name) = lost.filter(|(end, _)| *end > have).min()?;
    let need = object.values().filter_map(end).max()?;
    Some(format!(
        "it is cut short: the tensors need {need} bytes, {have} are there, and `{name}` is the \
         first that is lost; {AGAIN}"
    ))
}
