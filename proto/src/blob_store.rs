//! Where blobs lie in the folder of a store, which several processes of one machine read.

use std::fs::{File, Metadata};
use std::io::{Chain, Cursor, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::Digest;

/// The file of a blob, relative to the store: in one of 256 folders, so that none grows too large.
pub fn blob_file(address: &Digest) -> String {
    let name = address.to_string();
    format!("{}/{name}", &name[..2])
}

/// The file of a [`BlobLink`], relative to the store.
pub fn link_file(address: &Digest) -> String {
    format!("links/{address}")
}

/// A blob that is not copied into the store: its first bytes, and where the rest lies on this
/// machine. The tensors of a model are read from the model's own files. Like any blob it is checked
/// against its address when it is read.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlobLink {
    /// The first bytes of the blob.
    pub prefix: Vec<u8>,
    /// The file that has the others.
    pub path: String,
    /// Where they begin in the file, in bytes.
    pub offset: u64,
    /// How many bytes are taken from the file.
    pub bytes: u64,
    /// When the file was changed last, in nanoseconds since 1970.
    modified: u64,
}

/// The bytes of a linked blob.
pub type LinkedBlob = Chain<Cursor<Vec<u8>>, Take<File>>;

impl BlobLink {
    /// A link to bytes of a file; `None` where the file does not exist, is too short, or has a name
    /// that is not UTF-8.
    pub fn new(prefix: Vec<u8>, path: &Path, offset: u64, bytes: u64) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let found = path.metadata().ok()?;
        let link = Self {
            prefix,
            path: path.to_str()?.to_string(),
            offset,
            bytes,
            modified: modified(&found)?,
        };
        link.holds().then_some(link)
    }

    /// Whether the file still exists, was not changed since the link was made, and has all the
    /// bytes.
    pub fn holds(&self) -> bool {
        let end = self.offset.checked_add(self.bytes);
        let found = Path::new(&self.path).metadata();
        found.is_ok_and(|found| {
            found.is_file()
                && end.is_some_and(|end| end <= found.len())
                && modified(&found) == Some(self.modified)
        })
    }

    /// Reads a link of the store in `folder`; `None` where there is none, or its file has changed.
    pub fn find(folder: &Path, address: &Digest) -> Option<Self> {
        let bytes = std::fs::read(folder.join(link_file(address))).ok()?;
        Self::try_from_slice(&bytes).ok().filter(Self::holds)
    }

    /// The bytes of the blob. The caller has to check them against its address.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn open(&self) -> std::io::Result<LinkedBlob> {
        let mut file = File::open(PathBuf::from(&self.path))?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(Cursor::new(self.prefix.clone()).chain(file.take(self.bytes)))
    }
}

fn modified(found: &Metadata) -> Option<u64> {
    let since = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}
