//! A matrix as its file has it: blocks that products decode where they multiply.

use std::path::PathBuf;

use concord_kernels::Device;
use concord_kernels::coded::Precision;
use concord_kernels::packed::{BlockFormat, PackedRows, SharedBytes};

use crate::error::ModelError;

/// The rows of one matrix, in the order of transformers, as blocks: a part of the map of its file,
/// or a copy where rows change places.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    /// The name of the tensor, for messages.
    pub name: String,
    /// Its file, for messages.
    pub path: PathBuf,
    /// The format of the blocks.
    pub format: BlockFormat,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The blocks, row after row.
    pub bytes: SharedBytes,
}

impl PackedMatrix {
    /// The matrix, ready for products: all bytes are read once, for the exponents of the rows.
    ///
    /// # Errors
    /// [`ModelError::BadTensor`] for NaN and infinity, with the element, and for bytes that do not
    /// fill the shape.
    pub fn rows(self, device: &Device, precision: Precision) -> Result<PackedRows, ModelError> {
        let Self {
            name,
            path,
            format,
            shape,
            bytes,
        } = self;
        let rows = device.packed_rows(format, shape, bytes, precision);
        let checked = rows.and_then(|rows| rows.check_finite(&name).map(|()| rows));
        checked.map_err(|source| ModelError::BadTensor { path, source })
    }
}
