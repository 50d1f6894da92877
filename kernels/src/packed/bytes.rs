//! Bytes that several owners share.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// An owner of bytes that do not change: a mapped file, a vector.
pub type ByteOwner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A part of bytes that several owners share, without a copy: the rows of one tensor in the mapping
/// of its file.
#[derive(Clone)]
pub struct SharedBytes {
    owner: ByteOwner,
    range: Range<usize>,
}

impl SharedBytes {
    /// The bytes `range` of `owner`, or `None` where it has fewer.
    pub fn new(owner: ByteOwner, range: Range<usize>) -> Option<Self> {
        let all = owner.as_ref().as_ref();
        all.get(range.clone())?;
        Some(Self { owner, range })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.owner.as_ref().as_ref()[self.range.clone()]
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self {
            owner: Arc::new(bytes),
            range,
        }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.range.len())
    }
}
