//! The GGUF container: header, metadata, and the place of each tensor.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concord_kernels::packed::BlockFormat;
use memmap2::Mmap;

use super::cursor::Cursor;
use super::values::GgufValue;
use crate::error::ModelError;
use crate::weights::file;

/// Limits of the GGUF specification.
const KEY_MAX: usize = 65_535;
const DIMENSIONS_MAX: u32 = 4;
/// Longest name of a tensor that is accepted; the specification allows 64 bytes.
const NAME_MAX: usize = 512;

const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 20;

/// What to do about a file that is broken.
const AGAIN: &str = "download the file again";

/// A tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GgufTensor {
    /// Its shape, rows first: GGUF writes the innermost dimension first.
    pub(super) shape: Vec<usize>,
    /// How its numbers are packed, or the number of an unsupported type.
    pub(super) format: Result<BlockFormat, u32>,
    /// First and one-past-last byte, from the start of the file.
    pub(super) bytes: (usize, usize),
}

/// A GGUF file, mapped.
///
/// Invariant, checked by [`GgufFile::open`]: the tensors of supported types lie within the file,
/// their rows are whole blocks, and no two overlap.
#[derive(Debug)]
pub(super) struct GgufFile {
    path: PathBuf,
    map: Arc<Mmap>,
    /// The offset and the type of each value of the metadata.
    metadata: BTreeMap<String, (usize, u32)>,
    pub(super) tensors: BTreeMap<String, GgufTensor>,
}

impl GgufFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::BadGguf`] naming the key or the tensor.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let map = file::map(path)?;
        let bad = |reason: String| ModelError::BadGguf {
            path: path.to_path_buf(),
            reason: match reason.starts_with("its ") {
                true => reason,
                false => format!("it {reason}"),
            },
        };
        let mut cursor = Cursor::new(&map);
        let [tensors, pairs] = counts(&mut cursor).map_err(bad)?;
        let metadata = metadata(&mut cursor, pairs).map_err(bad)?;
        let alignment = alignment(&map, &metadata).map_err(bad)?;
        let tensors = infos(&mut cursor, tensors, alignment).map_err(bad)?;
        check_overlaps(&tensors).map_err(bad)?;
        Ok(Self {
            path: path.to_path_buf(),
            map,
            metadata,
            tensors,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The map of all its bytes.
    pub(super) fn map(&self) -> &Arc<Mmap> {
        &self.map
    }

    /// The bytes of a tensor.
    pub(super) fn bytes(&self, tensor: &GgufTensor) -> &[u8] {
        self.map.get(tensor.bytes.0..tensor.bytes.1).unwrap_or(&[])
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<GgufValue<'_>> {
        value(&self.map, *self.metadata.get(key)?)
    }

    /// The keys, sorted.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// The error that the value of a key cannot be used.
    pub(super) fn bad_key(&self, key: &str, reason: impl Into<String>) -> ModelError {
        ModelError::UnusableKey {
            path: self.path.clone(),
            key: key.to_string(),
            found: self
                .get(key)
                .map_or("not there".to_string(), GgufValue::shown),
            reason: reason.into(),
        }
    }
}

fn value(map: &[u8], (at, kind): (usize, u32)) -> Option<GgufValue<'_>> {
    let mut cursor = Cursor::at(map, at);
    GgufValue::read(&mut cursor, kind).ok()
}

/// Checks magic and version; returns how many tensors and metadata pairs there are.
fn counts(cursor: &mut Cursor) -> Result<[u64; 2], String> {
    let magic: [u8; 4] = cursor.array()?;
    if &magic != b"GGUF" {
        return Err(format!("does not begin with GGUF; {AGAIN}"));
    }
    match u32::from_le_bytes(cursor.array()?) {
        2 | 3 => {}
        swapped if [2, 3].contains(&swapped.swap_bytes()) => {
            return Err(
                "has its bytes in the order of big-endian machines: take a little-endian file"
                    .to_string(),
            );
        }
        other => {
            return Err(format!(
                "is of version {other}, and versions 2 and 3 are read: convert it with a present \
                 llama.cpp"
            ));
        }
    }
    let tensors = u64::from_le_bytes(cursor.array()?);
    Ok([tensors, u64::from_le_bytes(cursor.array()?)])
}

/// The places of the values. A false `count` allocates nothing: reading ends with the file's bytes.
fn metadata(cursor: &mut Cursor, count: u64) -> Result<BTreeMap<String, (usize, u32)>, String> {
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let key = name(cursor, KEY_MAX, "a key")?;
        let kind = u32::from_le_bytes(cursor.array()?);
        let at = cursor.place();
        GgufValue::read(cursor, kind).map_err(|reason| format!("its key `{key}` {reason}"))?;
        if metadata.insert(key.clone(), (at, kind)).is_some() {
            return Err(format!("has the key `{key}` twice; {AGAIN}"));
        }
    }
    Ok(metadata)
}

fn name(cursor: &mut Cursor, max: usize, what: &str) -> Result<String, String> {
    let bytes = cursor.text()?;
    let text = std::str::from_utf8(bytes).ok();
    let text = text.filter(|text| text.len() <= max && !text.is_empty());
    text.map(str::to_string).ok_or_else(|| {
        let shown = crate::json::shown(String::from_utf8_lossy(&bytes[..bytes.len().min(256)]));
        format!(
            "has {what} of {} bytes that is no name (`{shown}`); {AGAIN}",
            bytes.len()
        )
    })
}

fn alignment(map: &[u8], metadata: &BTreeMap<String, (usize, u32)>) -> Result<u64, String> {
    let key = "general.alignment";
    let Some(place) = metadata.get(key) else {
        return Ok(ALIGNMENT_DEFAULT);
    };
    let found = value(map, *place).and_then(GgufValue::whole);
    let found = found.filter(|n| (1..=ALIGNMENT_MAX).contains(n) && n.is_multiple_of(8));
    found.ok_or_else(|| format!("has a `{key}` that is no multiple of 8 up to {ALIGNMENT_MAX}"))
}

/// A tensor info as in the file. Its offset counts from the start of the data, which is known only
/// after all infos are read.
struct Info {
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

fn infos(
    cursor: &mut Cursor,
    count: u64,
    alignment: u64,
) -> Result<BTreeMap<String, GgufTensor>, String> {
    let mut infos = BTreeMap::new();
    for _ in 0..count {
        let name = name(cursor, NAME_MAX, "a tensor")?;
        let info = info(cursor).map_err(|reason| format!("its tensor `{name}` {reason}"))?;
        if infos.insert(name.clone(), info).is_some() {
            return Err(format!("has the tensor `{name}` twice; {AGAIN}"));
        }
    }
    let start = (cursor.place() as u64).next_multiple_of(alignment);
    let file = cursor.len();
    infos
        .into_iter()
        .map(|(name, info)| {
            let tensor = placed(info, start, alignment, file);
            let tensor = tensor.map_err(|reason| format!("its tensor `{name}` {reason}"))?;
            Ok((name, tensor))
        })
        .collect()
}

fn info(cursor: &mut Cursor) -> Result<Info, String> {
    let rank = u32::from_le_bytes(cursor.array()?);
    if rank > DIMENSIONS_MAX {
        return Err(format!(
            "has {rank} dimensions, and {DIMENSIONS_MAX} are the most; {AGAIN}"
        ));
    }
    let mut shape = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        let dim = u64::from_le_bytes(cursor.array()?);
        let dim = usize::try_from(dim);
        shape.push(dim.map_err(|_| "has a dimension too large for this machine")?);
    }
    shape.reverse();
    Ok(Info {
        shape,
        kind: u32::from_le_bytes(cursor.array()?),
        offset: u64::from_le_bytes(cursor.array()?),
    })
}

/// The tensor of an info, checked: within the file, and of whole rows of blocks.
fn placed(info: Info, start: u64, alignment: u64, file: usize) -> Result<GgufTensor, String> {
    let Info {
        shape,
        kind,
        offset,
    } = info;
    let format = format(kind).ok_or(kind);
    let cols = shape.last().copied().unwrap_or(1);
    let mut rows = shape[..shape.len().saturating_sub(1)].iter();
    let rows = rows.try_fold(1_usize, |rows, dim| rows.checked_mul(*dim));
    let rows = rows.filter(|rows| rows.checked_mul(cols).is_some());
    let rows = rows.ok_or_else(|| format!("has a shape {shape:?} that cannot be counted"))?;
    let length = match format {
        // The length of an unsupported type is unknown; it is never read.
        Err(_) => Some(0),
        Ok(format) => {
            let row = format.row_bytes(cols).ok_or_else(|| {
                format!(
                    "has rows of {cols} numbers, which fill no whole blocks of {} ({})",
                    format.elements(),
                    format.name()
                )
            })?;
            row.checked_mul(rows)
        }
    };
    if !offset.is_multiple_of(alignment) {
        return Err(format!(
            "lies at {offset}, which is no multiple of {alignment}; {AGAIN}"
        ));
    }
    let first = start
        .checked_add(offset)
        .and_then(|at| usize::try_from(at).ok());
    let bytes = first.zip(length);
    let bytes = bytes.and_then(|(first, length)| Some((first, first.checked_add(length)?)));
    match bytes {
        Some(bytes) if bytes.1 <= file => Ok(GgufTensor {
            shape,
            format,
            bytes,
        }),
        _ => {
            let mut reason = format!("lies beyond the end of the file, which has {file} bytes");
            if let Some((_, end)) = bytes {
                let _ = write!(reason, " of {end}");
            }
            Err(format!("{reason}: it is cut short; {AGAIN}"))
        }
    }
}

fn check_overlaps(tensors: &BTreeMap<String, GgufTensor>) -> Result<(), String> {
    let mut places: Vec<_> = tensors.iter().map(|(name, t)| (t.bytes, name)).collect();
    places.sort_unstable();
    for pair in places.windows(2) {
        if let [((_, end), before), ((start, _), name)] = pair
            && end > start
        {
            return Err(format!(
                "its tensors `{before}` and `{name}` overlap; {AGAIN}"
            ));
        }
    }
    Ok(())
}

/// The format of a ggml type, if it is supported.
fn format(kind: u32) -> Option<BlockFormat> {
    Some(match kind {
        0 => BlockFormat::F32,
        1 => BlockFormat::F16,
        2 => BlockFormat::Q4_0,
        3 => BlockFormat::Q4_1,
        6 => BlockFormat::Q5_0,
        7 => BlockFormat::Q5_1,
        8 => BlockFormat::Q8_0,
        10 => BlockFormat::Q2K,
        11 => BlockFormat::Q3K,
        12 => BlockFormat::Q4K,
        13 => BlockFormat::Q5K,
        14 => BlockFormat::Q6K,
        20 => BlockFormat::Iq4Nl,
        23 => BlockFormat::Iq4Xs,
        30 => BlockFormat::Bf16,
        39 => BlockFormat::Mxfp4,
        _ => return None,
    })
}

/// The name of an unsupported ggml type, as half a sentence.
pub(super) fn unread(kind: u32) -> String {
    let name = match kind {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return format!("of the type {kind}, of which nothing is known"),
    };
    name.to_string()
}
