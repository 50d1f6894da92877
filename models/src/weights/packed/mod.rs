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
mod codes;
mod compressed;
mod gptq;
mod keys;
mod method;
mod mxfp4;
mod parts;
mod scaled;
#[cfg(test)]
mod tests;

pub(super) use codes::BlockReader;
pub(super) use method::QuantMethod;
pub(super) use parts::PackedParts;

use codes::{CodeRows, Codes};
use concord_kernels::packed::BlockFormat;

use super::rows::RowReader;
use crate::error::ModelError;

/// A packed matrix whose parts fit each other.
pub(super) struct PackedMatrix<'a> {
    /// The shape of the weight: `[out, in]`, or `[expert, out, in]`.
    pub(super) shape: Vec<usize>,
    /// Makes the reader of its rows; this reads and checks scales and groups.
    reader: MakeReader<'a>,
    /// How it is kept packed in memory, if it can be.
    kept: Option<Kept<'a>>,
}

type Make<'a, T> = Box<dyn FnOnce() -> Result<Box<T>, ModelError> + 'a>;
type MakeReader<'a> = Make<'a, dyn RowReader + 'a>;

/// A matrix as blocks.
struct Kept<'a> {
    /// The format, if the parts are such that there is one.
    format: Box<dyn Fn() -> Option<BlockFormat> + 'a>,
    reader: Make<'a, dyn BlockReader + 'a>,
}

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

    /// A matrix that is not kept packed.
    fn new<R: RowReader + 'a>(
        shape: Vec<usize>,
        reader: impl FnOnce() -> Result<R, ModelError> + 'a,
    ) -> Self {
        Self {
            shape,
            reader: Box::new(move || Ok(Box::new(reader()?))),
            kept: None,
        }
    }

    /// A matrix of codes, which is kept as blocks where `format` finds one that it fits.
    fn of_codes<C: Codes + 'a>(
        shape: [usize; 2],
        format: impl Fn() -> Option<BlockFormat> + 'a,
        codes: impl Fn() -> Result<C, ModelError> + Clone + 'a,
    ) -> Self {
        let again = codes.clone();
        Self {
            shape: shape.to_vec(),
            reader: Box::new(move || Ok(Box::new(CodeRows(codes()?)))),
            kept: Some(Kept {
                format: Box::new(format),
                reader: Box::new(move || Ok(Box::new(CodeRows(again()?)))),
            }),
        }
    }

    /// The format of the blocks as which it is kept in memory and sent; nothing where its numbers
    /// are decoded when it is read.
    pub(super) fn format(&self) -> Option<BlockFormat> {
        self.kept.as_ref().and_then(|kept| (kept.format)())
    }

    /// The reader of its rows.
    ///
    /// # Errors
    /// [`ModelError::BadPackedTensor`] where the contents of a part are not valid.
    pub(super) fn reader(self) -> Result<Box<dyn RowReader + 'a>, ModelError> {
        (self.reader)()
    }

    /// The reader of its rows as blocks of [`Self::format`]; nothing where it has none.
    ///
    /// # Errors
    /// As [`Self::reader`].
    pub(super) fn block_reader(self) -> Result<Option<Box<dyn BlockReader + 'a>>, ModelError> {
        self.kept.map(|kept| (kept.reader)()).transpose()
    }
}
