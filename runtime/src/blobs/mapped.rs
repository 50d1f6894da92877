//! Tensors that lie on this machine, mapped: their bytes are in memory once for all processes that
//! map them, and the system takes them back where memory is short.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use concord_kernels::packed::ByteOwner;
use concord_models::weights::map_bytes;
use concord_proto::Digest;
use concord_proto::tensor::TensorHeader;

/// Files of fewer bytes are read.
const MAPPED_BYTES_MIN: u64 = 1 << 20;

/// The blob of a tensor, mapped. Its bytes have not been looked at.
pub(crate) struct MappedTensor {
    pub(crate) header: TensorHeader,
    /// What holds the bytes of its elements.
    pub(crate) owner: ByteOwner,
    /// Where in it they are.
    pub(crate) range: Range<usize>,
}

impl MappedTensor {
    /// The tensor whose blob is a file. A small one is read: a process has maps by the thousands,
    /// and models have more matrices of experts.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let owner = match path.metadata().ok()?.len() {
            0..MAPPED_BYTES_MIN => Arc::new(std::fs::read(path).ok()?),
            _ => map_bytes(path).ok()?,
        };
        let bytes: &[u8] = (*owner).as_ref();
        let (header, len) = TensorHeader::peek(bytes).ok()?;
        let range = len..bytes.len();
        Some(Self {
            header,
            owner,
            range,
        })
    }

    /// The tensor whose blob begins with `prefix` and goes on with a part of a file.
    pub(super) fn of_part(prefix: &[u8], owner: ByteOwner, offset: u64, len: u64) -> Option<Self> {
        let (header, known) = TensorHeader::peek(prefix).ok()?;
        let start = usize::try_from(offset).ok()?;
        let range = start..start.checked_add(usize::try_from(len).ok()?)?;
        let all: &[u8] = (*owner).as_ref();
        let is_inside = range.end <= all.len() && known == prefix.len();
        is_inside.then_some(Self {
            header,
            owner,
            range,
        })
    }

    /// The bytes of its elements.
    pub(crate) fn elements(&self) -> &[u8] {
        let all: &[u8] = (*self.owner).as_ref();
        all.get(self.range.clone()).unwrap_or(&[])
    }

    /// Whether the bytes are those of the address: they are read for that, a piece at a time.
    pub(crate) fn is_whole(&self, address: Digest) -> bool {
        let elements = self.elements();
        self.header.element_bytes() == Some(elements.len() as u64)
            && self.header.digest(elements) == address
    }
}

/// A file as it was when it was mapped.
type MapKey = (PathBuf, u64, Option<SystemTime>);

/// A map that somebody may still hold.
type WeakMap = Weak<dyn AsRef<[u8]> + Send + Sync>;

/// The maps of files of which several tensors are parts.
#[derive(Debug, Default)]
pub(super) struct Maps(Mutex<BTreeMap<MapKey, WeakMap>>);

impl Maps {
    /// The map of a file, made unless there is one.
    pub(super) fn of(&self, path: &Path) -> Option<ByteOwner> {
        let found = path.metadata().ok()?;
        let key = (path.to_path_buf(), found.len(), found.modified().ok());
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = maps.get(&key).and_then(Weak::upgrade) {
            return Some(map);
        }
        maps.retain(|_, map| map.strong_count() > 0);
        let map = map_bytes(path).ok()?;
        maps.insert(key, Arc::downgrade(&map));
        Some(map)
    }
}
