//! Matrices as the blocks in which they are stored in a mapped file, for callers that keep them
//! packed.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use concord_kernels::packed::BlockFormat;
use safetensors::Dtype;

use super::ModelFolder;
use super::file::forget;
use super::folder::TakeBytes;
use super::gguf::GgufRows;
use crate::error::ModelError;

/// A matrix as rows of blocks: a part of a file's shared map, or a copy where the file has the rows
/// in another order.
#[derive(Clone)]
pub struct BlockMatrix {
    /// How the numbers are packed; F32, F16 and BF16 are blocks of one number.
    pub format: BlockFormat,
    /// Rows of the matrix.
    pub rows: usize,
    /// Numbers in a row, which fill whole blocks.
    pub cols: usize,
    /// What holds the bytes.
    pub owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// Where in `owner` the rows are, one after another.
    pub range: Range<usize>,
}

impl BlockMatrix {
    /// The bytes of all rows.
    pub fn bytes(&self) -> &[u8] {
        let all: &[u8] = (*self.owner).as_ref();
        all.get(self.range.clone()).unwrap_or(&[])
    }
}

impl fmt::Debug for BlockMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} of {}", self.rows, self.cols, self.format.name())
    }
}

/// How a tensor is stored and sent: as its file has it, where that has one of our formats; as the
/// blocks that it is quantised to; else as the f32 that are decoded from what it has.
#[derive(Clone, Debug)]
pub struct StoredForm<'a> {
    /// The format of its bytes.
    pub format: BlockFormat,
    /// The file that has these bytes; nothing where they are made of others.
    pub file: Option<&'a Path>,
    /// Where in that file the bytes are, if they lie there as they are sent.
    pub place: Option<Range<usize>>,
}

impl ModelFolder {
    /// How a tensor is stored and sent.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing, or of a format that is not read.
    pub fn stored_form(&self, name: &str) -> Result<StoredForm<'_>, ModelError> {
        let decoded = |format| StoredForm {
            format,
            file: None,
            place: None,
        };
        if let Some(format) = self.quantizes(name) {
            return Ok(decoded(format.blocks()));
        }
        if let Some(gguf) = &self.gguf
            && let Some(rows) = self.gguf_rows(name)?
        {
            let is_there = rows.is_in_order() && is_stored_so(&rows);
            let place = is_there.then_some(rows.place.0..rows.place.1);
            return Ok(StoredForm {
                format: format_of(&rows),
                file: Some(gguf.path(self.settled(name))),
                place,
            });
        }
        if let Some(matrix) = self.own_packed(self.settled(name))? {
            return Ok(decoded(matrix.format().unwrap_or(BlockFormat::F32)));
        }
        let (file, stored) = self.stored(name)?;
        Ok(StoredForm {
            format: match file.dtype(stored) {
                Some(Dtype::F16) => BlockFormat::F16,
                Some(Dtype::BF16) => BlockFormat::Bf16,
                _ => BlockFormat::F32,
            },
            file: Some(file.path()),
            place: Some(file.place(stored)?),
        })
    }

    /// The bytes of a tensor in the format of its [`Self::stored_form`], in the order of
    /// transformers. They are not looked at: NaN and infinity may be in them.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing or broken; and what `take` says.
    pub fn each_stored(&self, name: &str, take: &mut TakeBytes<'_>) -> Result<(), ModelError> {
        if let Some(format) = self.quantizes(name) {
            return take(self.quantized_matrix(name, format)?.bytes());
        }
        if let Some(rows) = self.gguf_rows(name)?.filter(is_stored_so) {
            return match rows.is_in_order() {
                true => take(rows.bytes),
                false => rows.each_stored(take),
            };
        }
        if let Some(matrix) = self.repacked(name)? {
            return matrix.each(take);
        }
        if self.gguf.is_some() || self.is_packed(name) {
            return self.load_rows(name, &mut |_, rows| {
                let words = rows.data().iter().flat_map(|number| number.to_le_bytes());
                take(&words.collect::<Vec<u8>>())
            });
        }
        take(self.bytes(name)?)
    }

    /// Lets the system take back the memory that the bytes of a tensor were read into.
    pub fn forget(&self, name: &str) {
        if let Ok(Some(rows)) = self.gguf_rows(name) {
            forget(rows.map, rows.place.0..rows.place.1);
        } else if let Ok((file, stored)) = self.stored(name) {
            file.forget(stored);
        }
        for (file, part) in self.packed_files(self.settled(name)) {
            file.forget(part);
        }
    }

    /// A matrix as blocks: those of its file, which are not looked at, so NaN and infinity may be
    /// in them; or those that it is quantised to, or that the parts in which it lies are repacked
    /// to, which are made anew each time. Nothing where it is no matrix, or has no blocks.
    ///
    /// # Errors
    /// [`ModelError`] where it is missing, or of an unsupported format.
    pub fn blocks(&self, name: &str) -> Result<Option<BlockMatrix>, ModelError> {
        if let Some(format) = self.quantizes(name) {
            return self.quantized_matrix(name, format).map(Some);
        }
        if let Some(rows) = self.gguf_rows(name)? {
            let &[count, cols] = rows.shape().as_slice() else {
                return Ok(None);
            };
            if !rows.is_as_stored() {
                return Ok(None);
            }
            let (owner, range) = rows.shared();
            return Ok(Some(BlockMatrix {
                format: rows.format,
                rows: count,
                cols,
                owner,
                range,
            }));
        }
        if self.is_packed(name) {
            return self.repacked_matrix(name);
        }
        let (file, stored) = self.stored(name)?;
        let format = match file.dtype(stored) {
            Some(Dtype::F32) => BlockFormat::F32,
            Some(Dtype::F16) => BlockFormat::F16,
            Some(Dtype::BF16) => BlockFormat::Bf16,
            _ => return Ok(None),
        };
        let Some(&[rows, cols]) = file.shape(stored) else {
            return Ok(None);
        };
        Ok(Some(BlockMatrix {
            format,
            rows,
            cols,
            owner: file.map(),
            range: file.place(stored)?,
        }))
    }
}

/// Whether the rows of a GGUF file can be sent as they are there: those that say other numbers
/// cannot, nor can a vector in another order whose blocks are of several numbers.
fn is_stored_so(rows: &GgufRows) -> bool {
    let is_whole = rows.is_in_order() || !rows.is_vector || rows.format.elements() == 1;
    is_whole && rows.is_as_stored()
}

fn format_of(rows: &GgufRows) -> BlockFormat {
    match is_stored_so(rows) {
        true => rows.format,
        false => BlockFormat::F32,
    }
}
