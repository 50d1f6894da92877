//! Writes a model as one GGUF file, as llama.cpp's converter names its tensors and metadata.
//!
//! The tables of what is read (`weights/gguf`) are used in the other direction; what they cannot
//! say of a model is found by reading the head of the file again, before its numbers are written.

mod blocks;
mod check;
mod container;
mod metadata;
mod plan;
mod pre_tokenizer;
mod tokenizer;
mod types;

use std::io::Write;
use std::path::Path;

use super::replace_file_by;
use super::source::ExportSource;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::weights::{architecture_names, of_family};
use container::{ALIGNMENT, Info};
use plan::PlannedTensor;

pub use types::GgufKind;

/// Writes a model as the GGUF file `path`, with its tokenizer and its chat template; `name` is
/// shown by programs. One tensor is in memory at a time. `progress` is told the bytes of numbers
/// that are written, and how many there are. Returns the bytes of the file.
///
/// # Errors
/// [`ModelError::CannotExport`] for a family, a tokenizer or a setting that such a file does not
/// say, or a number that is too large for its type; the errors of the source; [`ModelError::Io`].
pub fn write_gguf(
    path: &Path,
    source: &dyn ExportSource,
    kind: GgufKind,
    name: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, ModelError> {
    let folder = source.folder();
    let config = folder.config();
    let cannot = |reason: String| ModelError::CannotExport {
        path: folder.dir().to_path_buf(),
        reason,
    };
    let architecture = of_family(config.family).ok_or_else(|| {
        cannot(format!(
            "it is of the family {}, and those of {} are written",
            config.family.architecture(),
            architecture_names()
        ))
    })?;
    let planned = plan::of(config, architecture, kind).map_err(cannot)?;
    let made = metadata::made_tensors(config);
    let mut metadata = metadata::of(config, architecture, kind, name);
    metadata.extend(tokenizer::of(folder)?);
    let infos: Vec<Info> = made
        .iter()
        .map(|made| made.info.clone())
        .chain(planned.iter().map(|planned| planned.info.clone()))
        .collect();
    let mut head = container::head(&metadata, &infos);
    for made in &made {
        head.extend(made.values.iter().flat_map(|value| value.to_le_bytes()));
        pad(&mut head);
    }
    let sizes = planned.iter().map(|planned| padded(planned.info.bytes()));
    let total: u64 = sizes.sum();
    let size = head.len() as u64 + total;
    check::check(path, &head, size, folder)?;
    replace_file_by(path, |out| {
        let io = || ModelError::io("write", path);
        out.write_all(&head).map_err(io())?;
        let mut done = 0;
        for planned in &planned {
            write_tensor(path, source, planned, out)?;
            done += padded(planned.info.bytes());
            progress(done, total);
        }
        Ok(())
    })?;
    Ok(size)
}

/// A sentence where llama.cpp computes something else of such a file than the model is.
pub fn gguf_note(config: &DecoderConfig) -> Option<String> {
    let architecture = of_family(config.family)?.name;
    let windows = config.sliding_window.iter().flatten();
    let window = windows
        .min()
        .filter(|window| (**window as usize) < config.max_positions)?;
    ["llama", "phi3"].contains(&architecture).then(|| {
        format!(
            "llama.cpp computes no sliding window in files of `{architecture}`: in texts of more \
             than {window} tokens its results are others"
        )
    })
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(padded(bytes.len() as u64) as usize, 0);
}

/// Writes a tensor, and zeros up to the next one.
fn write_tensor(
    path: &Path,
    source: &dyn ExportSource,
    planned: &PlannedTensor,
    out: &mut dyn Write,
) -> Result<(), ModelError> {
    let io = || ModelError::io("write", path);
    let mut written = 0;
    for name in &planned.names {
        plan::each_part(source, planned, name, &mut |values| {
            let bytes = encoded(planned, values).ok_or_else(|| ModelError::CannotExport {
                path: source.folder().dir().to_path_buf(),
                reason: format!(
                    "a number of `{name}` is too large for {}: take bf16 or f32",
                    planned.info.format.name()
                ),
            })?;
            written += bytes.len();
            out.write_all(&bytes).map_err(io())
        })?;
    }
    let rest = padded(written as u64) as usize - written;
    out.write_all(&[0; ALIGNMENT as usize][..rest])
        .map_err(io())
}

/// Numbers as blocks, by all processors; nothing where one is too large.
fn encoded(planned: &PlannedTensor, values: &[f32]) -> Option<Vec<u8>> {
    let format = planned.info.format;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let of_each = values
        .len()
        .div_ceil(threads)
        .next_multiple_of(format.elements());
    let parts: Vec<Option<Vec<u8>>> = std::thread::scope(|scope| {
        let encode = |values| {
            move || {
                let mut bytes = Vec::new();
                blocks::encode(format, values, &mut bytes).then_some(bytes)
            }
        };
        let parts = values.chunks(of_each.max(1));
        let parts: Vec<_> = parts.map(|values| scope.spawn(encode(values))).collect();
        let ended = parts.into_iter().map(|part| part.join().ok().flatten());
        ended.collect()
    });
    Some(parts.into_iter().collect::<Option<Vec<_>>>()?.concat())
}
