//! Packed matrices of safetensors files, each stored as several tensors.
//!
//! The number that a code means is defined in f32: the code, an integer or a level, times its
//! scale, each step rounded once (NUMERICS.md, section 1). The libraries that write these files
//! compute the same number and then round it to the dtype of the activations, f16 or bf16, because
//! their matrix products take operands of that dtype. That rounding belongs to their arithmetic,
//! not to the format: it depends on a setting that is in no file.

mod awq;
mod bits;
mod bitsandbytes;
mod compressed;
mod gptq;
mod keys;
mod method;
mod mxfp4;
mod parts;
mod scaled;
#[cfg(test)]
mod tests;

pub(super) use method::QuantMethod;
pub(super) use parts::PackedParts;

use super::rows::RowReader;
use crate::error::ModelError;

/// A packed matrix whose parts fit each other.
pub(super) struct PackedMatrix<'a> {
    /// The shape of the weight: `[out, in]`, or `[expert, out, in]`.
    pub(super) shape: Vec<usize>,
    /// Makes the reader of its rows; this reads and checks scales and groups.
    reader: MakeReader<'a>,
}

type MakeReader<'a> = Box<dyn FnOnce() -> Result<Box<dyn RowReader + 'a>, ModelError> + 'a>;

impl<'a> PackedMatrix<'a> {
    /// Opens the matrix of a module. Checks that its parts are there, with dtypes and shapes that
    /// fit; reads headers only.
    ///
    /// # Errors
    /// [`ModelError::BadPackedTensor`] naming the part.
    pub(super) fn open(method: &QuantMethod, parts: PackedParts<'a>) -> Result<Self, ModelError> {
        match method {
            QuantMethod::Gptq(options) => gptq::open(options, parts),
            QuantMethod::Awq(options) => awq::open(options, parts),
            QuantMethod::Compressed(options) => compressed::open(options, parts),
            QuantMethod::Fp8(options) => scaled::open_fp8(options, parts),
            QuantMethod::Bitsandbytes => bitsandbytes::open(parts),
            QuantMethod::Mxfp4 => mxfp4::open(parts),
        }
    }

    fn new<R: RowReader + 'a>(
        shape: Vec<usize>,
        reader: impl FnOnce() -> Result<R, ModelError> + 'a,
    ) -> Self {
        Self {
            shape,
            reader: Box::new(move || Ok(Box::new(reader()?))),
        }
    }

    /// The reader of its rows.
    ///
    /// # Errors
    /// [`ModelError::BadPackedTensor`] where the contents of a part are not valid.
    pub(super) fn reader(self) -> Result<Box<dyn RowReader + 'a>, ModelError> {
        (self.reader)()
    }
}
