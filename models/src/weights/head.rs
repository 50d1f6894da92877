//! Whether the head is tied to the embedding: config.json says so, but the weights may contradict.

use std::ops::Range;

use safetensors::Dtype;

use super::file::widened;
use super::folder::ModelFolder;
use super::rows::{RowReader, runs_of_rows};
use crate::config::with_value;
use crate::error::ModelError;

/// Bytes that are compared at a time; a multiple of every dtype's size.
const COMPARED_BYTES: usize = 1 << 16;

/// The head's name in most families.
const HEAD: &str = "lm_head.weight";

impl ModelFolder {
    /// Decides `tie_embeddings` as transformers 5 does. Where config.json ties the head, but the
    /// weights have both tensors and these differ, the head of the weights is used. Where they have
    /// only the head, it is the embedding, too.
    ///
    /// In the first case `tie_word_embeddings` becomes false in the text of the configuration,
    /// because other machines that get this text must come to the same model.
    pub(super) fn settle_head(&mut self) -> Result<(), ModelError> {
        let parts = self.config.parts();
        let (embed, head) = (&parts.embed_weight(), &parts.head_weight());
        // transformers 5 writes the head of every family by one name, and reads it by either.
        if !self.lies(head) {
            if let Some(home) = self.homes.remove(HEAD) {
                self.homes.insert(head.clone(), home);
            }
            if let Some(quantized) = &mut self.quantized {
                quantized.rename(HEAD, head);
            }
        }
        if !self.config.tie_embeddings {
            return match self.lies(head) {
                true => Ok(()),
                false => Err(ModelError::MissingHead {
                    path: self.place(head),
                }),
            };
        }
        match (self.lies(embed), self.lies(head)) {
            (true, true) if !self.is_equal(embed, head)? => {
                self.config.tie_embeddings = false;
                self.config_json = with_value(&self.config_json, "tie_word_embeddings", "false");
            }
            (false, true) => {
                if let Some(head) = self.homes.get(head).cloned() {
                    self.homes.insert(embed.clone(), head);
                }
                if let Some(quantized) = &mut self.quantized {
                    quantized.alias(head, embed);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether two tensors have the same shape and the same numbers, whatever their dtypes.
    fn is_equal(&self, a: &str, b: &str) -> Result<bool, ModelError> {
        let quantized = self.quantized.as_ref();
        let is_packed = |name| quantized.is_some_and(|quantized| quantized.has(name));
        if self.gguf.is_some() || is_packed(a) || is_packed(b) {
            return self.has_equal_rows(a, b);
        }
        let ((a_file, a), (b_file, b)) = (self.found(a)?, self.found(b)?);
        if a_file.shape(a) != b_file.shape(b) {
            return Ok(false);
        }
        let (Some(a_type), Some(b_type)) = (a_file.dtype(a), b_file.dtype(b)) else {
            return Ok(false);
        };
        let (a, b) = (a_file.bytes(a)?, b_file.bytes(b)?);
        if a_type == b_type && a == b {
            return Ok(true);
        }
        // Unsupported dtypes cannot be compared; loading them is refused later.
        let (a_width, b_width) = (a_type.bitsize() / 8, b_type.bitsize() / 8);
        if a_width == 0 || b_width == 0 {
            return Ok(false);
        }
        let count = COMPARED_BYTES / a_width.max(b_width);
        let mut pairs = a.chunks(count * a_width).zip(b.chunks(count * b_width));
        // -0 equals 0 here, as in torch.
        Ok(
            pairs.all(|(a, b)| match (widened(a_type, a), widened(b_type, b)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            }),
        )
    }

    /// The same of tensors of which one is decoded, by some rows at a time.
    fn has_equal_rows(&self, a: &str, b: &str) -> Result<bool, ModelError> {
        let (Some((a_shape, a)), Some((b_shape, b))) = (self.reader(a)?, self.reader(b)?) else {
            return Ok(false);
        };
        let &[rows, cols] = a_shape.as_slice() else {
            return Ok(false);
        };
        if a_shape != b_shape {
            return Ok(false);
        }
        for run in runs_of_rows(rows, cols) {
            let [mut of_a, mut of_b] = [(); 2].map(|()| vec![0.0_f32; run.len() * cols]);
            a.read(run.clone(), &mut of_a);
            b.read(run, &mut of_b);
            if of_a != of_b {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The shape of a tensor, and what reads its rows; nothing of a format that is not read.
    fn reader<'a>(&'a self, name: &'a str) -> Result<Option<Reader<'a>>, ModelError> {
        if let Some(decoded) = self.own_decoded(name)? {
            return Ok(Some((decoded.shape, decoded.rows)));
        }
        let (file, stored) = self.found(name)?;
        let (Some(shape), Some(dtype)) = (file.shape(stored), file.dtype(stored)) else {
            return Ok(None);
        };
        if widened(dtype, &[]).is_none() {
            return Ok(None);
        }
        let rows = PlainRows {
            dtype,
            cols: shape.last().copied().unwrap_or(1),
            bytes: file.bytes(stored)?,
        };
        Ok(Some((shape.to_vec(), Box::new(rows))))
    }
}

/// A shape, and what reads the rows.
type Reader<'a> = (Vec<usize>, Box<dyn RowReader + 'a>);

/// Rows of numbers as they lie in a file.
struct PlainRows<'a> {
    dtype: Dtype,
    cols: usize,
    bytes: &'a [u8],
}

impl RowReader for PlainRows<'_> {
    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        let width = self.cols * self.dtype.bitsize() / 8;
        let bytes = self.bytes.get(rows.start * width..rows.end * width);
        let wide = bytes.and_then(|bytes| widened(self.dtype, bytes));
        out.copy_from_slice(&wide.unwrap_or_else(|| vec![f32::NAN; out.len()]));
    }
}
