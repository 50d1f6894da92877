//! The tensors in which a packed weight is stored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::Dtype;

use crate::error::ModelError;
use crate::weights::file::{TensorFile, widened};
use crate::weights::shards::TensorHome;

/// The parts of one weight, found by the suffixes of their names after the module.
#[derive(Clone, Copy)]
pub(in crate::weights) struct PackedParts<'a> {
    /// The files, and where each part is.
    pub(in crate::weights) files: &'a [TensorFile],
    pub(in crate::weights) homes: &'a BTreeMap<String, TensorHome>,
    /// The prefix of the parts' names, such as `model.layers.0.self_attn.q_proj`.
    pub(in crate::weights) module: &'a str,
}

/// One part of a packed weight.
#[derive(Clone, Copy)]
pub(in crate::weights) struct StoredPart<'a> {
    file: &'a TensorFile,
    name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
}

impl<'a> PackedParts<'a> {
    /// The part whose name ends with `end`, if there is one.
    pub(super) fn find(&self, end: &str) -> Option<StoredPart<'a>> {
        let home = self.homes.get(&format!("{}{end}", self.module))?;
        let file = self.files.get(home.file)?;
        let name = &*home.stored;
        Some(StoredPart {
            file,
            name,
            dtype: file.dtype(name)?,
            shape: file.shape(name)?,
            bytes: file.bytes(name).ok()?,
        })
    }

    /// The part whose name ends with `end`.
    pub(super) fn part(&self, end: &str) -> Result<StoredPart<'a>, ModelError> {
        self.find(end).ok_or_else(|| ModelError::MissingTensor {
            path: self.path(),
            tensor: format!("{}{end}", self.module),
        })
    }

    /// The part whose name ends with `end`, which must have the dtype `dtype`.
    pub(super) fn typed(&self, end: &str, dtype: Dtype) -> Result<StoredPart<'a>, ModelError> {
        let part = self.part(end)?;
        match part.dtype == dtype {
            true => Ok(part),
            false => Err(part.bad(format!("it is {:?}, and must be {dtype:?}", part.dtype))),
        }
    }

    /// The file of its first part, for messages.
    fn path(&self) -> PathBuf {
        let mut of_module = self.homes.range(self.module.to_string()..);
        let home = of_module.next().map_or(0, |(_, home)| home.file);
        let file = self.files.get(home).or_else(|| self.files.first());
        file.map_or_else(PathBuf::new, |file| file.path().to_path_buf())
    }
}

impl<'a> StoredPart<'a> {
    /// The error that it cannot be used, as half a sentence.
    pub(super) fn bad(&self, reason: impl Into<String>) -> ModelError {
        ModelError::BadPackedTensor {
            path: self.file.path().to_path_buf(),
            tensor: self.name.to_string(),
            reason: reason.into(),
        }
    }

    /// Its file.
    pub(super) fn path(&self) -> PathBuf {
        self.file.path().to_path_buf()
    }

    /// Refuses another shape than `expected`.
    pub(super) fn shaped(self, expected: &[usize], why: &str) -> Result<Self, ModelError> {
        match self.shape == expected {
            true => Ok(self),
            false => Err(self.bad(format!(
                "it has the shape {:?}, but {why} make it {expected:?}",
                self.shape
            ))),
        }
    }

    /// Its two dimensions.
    pub(super) fn matrix(&self) -> Result<[usize; 2], ModelError> {
        self.shape
            .try_into()
            .map_err(|_| self.bad(format!("it has the shape {:?}, and no matrix", self.shape)))
    }

    /// Its numbers, which are F32, F16 or BF16 and finite.
    pub(super) fn floats(&self) -> Result<Vec<f32>, ModelError> {
        let floats = widened(self.dtype, self.bytes).ok_or_else(|| {
            self.bad(format!(
                "it is {:?}, and scales are F32, F16 or BF16",
                self.dtype
            ))
        })?;
        match floats.iter().position(|scale| !scale.is_finite()) {
            None => Ok(floats),
            Some(i) => Err(self.bad(format!(
                "number {i} is {}: no weight can be made of it; download the file again",
                floats[i]
            ))),
        }
    }

    /// Its bytes as 32-bit words.
    pub(super) fn words(&self) -> &'a [[u8; 4]] {
        self.bytes.as_chunks().0
    }
}
