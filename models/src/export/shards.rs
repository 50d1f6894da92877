//! Weights in one safetensors file or in shards with their index, tensor by tensor.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::source::ExportSource;
use super::tensors::{ExportDtype, check_fits, header};
use super::{replace_file, replace_file_by};
use crate::config::TensorSpec;
use crate::error::ModelError;

/// The file of all weights, where they fit in one.
const SINGLE: &str = "model.safetensors";

/// The index of shards.
const INDEX: &str = "model.safetensors.index.json";

/// A tensor, and how it is written.
pub(super) type Planned = (ExportDtype, TensorSpec);

/// Writes tensors so that no file has more than `most` bytes of them, unless one tensor has. A
/// shard is filled in the order of `tensors`; within a file, wider dtypes come first, then names in
/// order, as in the safetensors library. One piece of one tensor is in memory at a time.
///
/// `done` is told the bytes of each piece that is written.
pub(super) fn write(
    folder: &Path,
    source: &dyn ExportSource,
    tensors: Vec<Planned>,
    most: u64,
    done: &mut dyn FnMut(u64),
) -> Result<(), ModelError> {
    let mut shards = cut(tensors, most);
    let count = shards.len();
    if let [all] = shards.as_mut_slice() {
        return write_file(&folder.join(SINGLE), source, all, done);
    }
    let (mut homes, mut total) = (BTreeMap::new(), 0);
    for (number, shard) in (1..).zip(&mut shards) {
        let name = format!("model-{number:05}-of-{count:05}.safetensors");
        write_file(&folder.join(&name), source, shard, done)?;
        for planned in shard.iter() {
            total += bytes(planned);
            homes.insert(planned.1.name.clone(), name.clone());
        }
    }
    let path = folder.join(INDEX);
    let index = json!({"metadata": {"total_size": total}, "weight_map": homes});
    let mut text = serde_json::to_string_pretty(&index).map_err(ModelError::json(&path))?;
    text.push('\n');
    replace_file(&path, |out| out.write_all(text.as_bytes()))
}

/// Bytes of a tensor.
pub(super) fn bytes((dtype, spec): &Planned) -> u64 {
    let elements: u64 = spec.shape.iter().map(|dim| *dim as u64).product();
    elements * dtype.width()
}

/// The tensors of each shard.
fn cut(tensors: Vec<Planned>, most: u64) -> Vec<Vec<Planned>> {
    let (mut shards, mut filled) = (vec![Vec::new()], 0);
    for planned in tensors {
        let size = bytes(&planned);
        if filled > 0 && filled + size > most {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        shards.last_mut().expect("one at least").push(planned);
    }
    shards
}

fn write_file(
    path: &Path,
    source: &dyn ExportSource,
    tensors: &mut [Planned],
    done: &mut dyn FnMut(u64),
) -> Result<(), ModelError> {
    tensors.sort_by(|(a, x), (b, y)| (a, &x.name).cmp(&(b, &y.name)));
    let entries = tensors
        .iter()
        .map(|(dtype, spec)| (*dtype, spec.name.as_str(), spec.shape.as_slice()));
    let header = header(entries).map_err(ModelError::json(path))?;
    replace_file_by(path, |out| {
        let cannot = || ModelError::io("write", path);
        let length = (header.len() as u64).to_le_bytes();
        out.write_all(&length).map_err(cannot())?;
        out.write_all(header.as_bytes()).map_err(cannot())?;
        let mut encoded = Vec::new();
        for (dtype, spec) in tensors.iter() {
            let mut first = 0;
            source.rows(&spec.name, &mut |_, rows| {
                let fits = check_fits(*dtype, (&spec.name, first), &rows);
                fits.map_err(|source| ModelError::BadTensor {
                    path: path.to_path_buf(),
                    source,
                })?;
                first += rows.len();
                encoded.clear();
                dtype.write(rows.data(), &mut encoded).map_err(cannot())?;
                done(encoded.len() as u64);
                out.write_all(&encoded).map_err(cannot())
            })?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_filled_and_no_more() {
        let planned = |name: &str, elements: usize| {
            let spec = TensorSpec {
                name: name.to_string(),
                shape: vec![elements],
            };
            (ExportDtype::BF16, spec)
        };
        let sizes = [4, 2, 2, 9, 1];
        let tensors = sizes.iter().map(|size| planned("t", *size)).collect();
        let counts: Vec<usize> = cut(tensors, 12).iter().map(Vec::len).collect();
        // The fourth alone is larger than a shard may be.
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(cut(vec![planned("t", 100)], 1).len(), 1);
    }
}
