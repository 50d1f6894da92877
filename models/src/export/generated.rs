//! Writes tensors that are computed on the way, to one safetensors file.

use std::io::{self, Write};
use std::path::Path;

use super::replace_file;
use super::tensors::{ExportDtype, header};
use crate::config::TensorSpec;
use crate::error::ModelError;

/// Values that are in memory at a time: 16 MiB as f32.
const PIECE: usize = 1 << 22;

/// Computes values of a tensor: takes its name, the index of the first element, and the slice to
/// fill.
pub type FillValues<'a> = dyn Fn(&str, u64, &mut [f32]) + Sync + 'a;

/// Writes `tensors` in their order, all in one dtype, as [`super::write_tensors`] does. Only a
/// piece of one tensor is in memory at a time; `fill` is called by `threads` threads, and its
/// values must be finite in the dtype.
///
/// # Errors
/// [`ModelError::Io`], leaving an older file as it was.
pub fn write_generated(
    path: &Path,
    tensors: &[TensorSpec],
    dtype: ExportDtype,
    threads: usize,
    fill: &FillValues<'_>,
) -> Result<(), ModelError> {
    let entries = tensors
        .iter()
        .map(|tensor| (dtype, tensor.name.as_str(), tensor.shape.as_slice()));
    let header = header(entries).map_err(ModelError::json(path))?;
    replace_file(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        let mut pieces = Pieces::new(dtype, threads.max(1));
        for tensor in tensors {
            pieces.write(tensor, fill, out)?;
        }
        Ok(())
    })
}

/// Buffers of a piece: values and their bytes.
struct Pieces {
    dtype: ExportDtype,
    threads: usize,
    values: Vec<f32>,
    bytes: Vec<u8>,
}

impl Pieces {
    fn new(dtype: ExportDtype, threads: usize) -> Self {
        Self {
            dtype,
            threads,
            values: vec![0.0; PIECE],
            bytes: vec![0; PIECE * dtype.width() as usize],
        }
    }

    fn write(
        &mut self,
        tensor: &TensorSpec,
        fill: &FillValues<'_>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let len: usize = tensor.shape.iter().product();
        for start in (0..len).step_by(PIECE) {
            let count = PIECE.min(len - start);
            self.make(&tensor.name, start as u64, count, fill)?;
            out.write_all(&self.bytes[..count * self.dtype.width() as usize])?;
        }
        Ok(())
    }

    /// The bytes of `count` values, split over the threads.
    fn make(
        &mut self,
        name: &str,
        start: u64,
        count: usize,
        fill: &FillValues<'_>,
    ) -> io::Result<()> {
        let (dtype, width) = (self.dtype, self.dtype.width() as usize);
        let share = count.div_ceil(self.threads);
        let values = self.values[..count].chunks_mut(share);
        let bytes = self.bytes[..count * width].chunks_mut(share * width);
        std::thread::scope(|scope| {
            let parts = values.zip(bytes).enumerate();
            let makers = parts.map(|(part, (values, mut bytes))| {
                scope.spawn(move || {
                    fill(name, start + (part * share) as u64, values);
                    dtype.write(values, &mut bytes)
                })
            });
            // Collected, so that all threads start before the first is joined.
            let makers: Vec<_> = makers.collect();
            let mut ended = makers.into_iter().map(|maker| maker.join());
            let failed = || io::Error::other("a thread that computes values has panicked");
            ended.try_for_each(|end| end.unwrap_or_else(|_| Err(failed())))
        })
    }
}
