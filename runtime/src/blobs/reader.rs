//! A blob read piece by piece, and checked against its address at the end.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use concord_proto::Digest;
use concord_proto::blob_store::LinkedBlob;
use concord_proto::limits::BLOB_BYTES_MAX;
use concord_proto::tensor::{AddressHasher, TensorHeader};

use super::io;
use crate::RuntimeError;

/// Bytes that are read at a time where only the digest is wanted.
const PIECE: usize = 1 << 20;

/// Longer than any header of a tensor.
const HEADER_BYTES_MAX: u64 = 256;

/// The bytes of a blob on this machine.
pub(crate) enum BlobBytes {
    /// A file of its own.
    File(File),
    /// The beginning, and a part of another file.
    Link(LinkedBlob),
}

impl BlobBytes {
    /// The length in bytes, as far as it is known.
    fn len(&self) -> usize {
        let bytes = match self {
            Self::File(file) => file.metadata().map_or(0, |found| found.len()),
            Self::Link(linked) => {
                let (head, rest) = linked.get_ref();
                head.get_ref().len() as u64 + rest.limit()
            }
        };
        bytes.min(BLOB_BYTES_MAX) as usize
    }
}

impl Read for BlobBytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Link(linked) => linked.read(buffer),
        }
    }
}

/// A blob that is read in order.
pub(crate) struct BlobReader {
    bytes: BlobBytes,
    path: PathBuf,
    address: Digest,
    hasher: AddressHasher,
    /// Read from the file, and not asked for yet.
    ahead: Vec<u8>,
}

impl BlobReader {
    pub(super) fn new(bytes: BlobBytes, path: PathBuf, address: Digest) -> Self {
        Self {
            bytes,
            path,
            address,
            hasher: AddressHasher::default(),
            ahead: Vec::new(),
        }
    }

    /// Whether its bytes lie in a file of something else, such as a model.
    pub(super) fn is_linked(&self) -> bool {
        matches!(self.bytes, BlobBytes::Link(_))
    }

    /// The header of the tensor that the blob is.
    ///
    /// # Errors
    /// [`RuntimeError::BadBlob`] where it is none.
    pub(crate) fn header(&mut self) -> Result<TensorHeader, RuntimeError> {
        let mut head = Vec::new();
        let mut some = (&mut self.bytes).take(HEADER_BYTES_MAX);
        let read = some.read_to_end(&mut head);
        read.map_err(|why| io("read", &self.path, why))?;
        let bad = |why| RuntimeError::BadBlob {
            digest: self.address,
            what: "tensor",
            why,
        };
        let (header, len) = TensorHeader::peek(&head).map_err(bad)?;
        self.hasher.update(&head[..len]);
        self.ahead = head.split_off(len);
        Ok(header)
    }

    /// Fills `buffer` with the bytes that follow.
    ///
    /// # Errors
    /// [`RuntimeError::Io`] where they cannot be read, or end before.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RuntimeError> {
        let known = self.ahead.len().min(buffer.len());
        let (first, rest) = buffer.split_at_mut(known);
        first.copy_from_slice(&self.ahead[..known]);
        self.ahead.drain(..known);
        let read = self.bytes.read_exact(rest);
        read.map_err(|why| io("read", &self.path, why))?;
        self.hasher.update(buffer);
        Ok(())
    }

    /// All bytes, from the beginning.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(super) fn into_bytes(mut self) -> Result<Vec<u8>, RuntimeError> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let read = self.bytes.read_to_end(&mut bytes);
        read.map_err(|why| io("read", &self.path, why))?;
        self.hasher.update(&bytes);
        self.finish().map(|_| bytes)
    }

    /// Reads what is left, and says how many bytes that is.
    ///
    /// # Errors
    /// [`RuntimeError::Io`]; [`RuntimeError::WrongBlob`] where the bytes are not those of the
    /// address.
    pub(crate) fn finish(mut self) -> Result<u64, RuntimeError> {
        self.hasher.update(&self.ahead);
        let mut left = self.ahead.len() as u64;
        let mut piece = vec![0; PIECE];
        loop {
            match self.bytes.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    self.hasher.update(&piece[..count]);
                    left += count as u64;
                }
                Err(why) if why.kind() == std::io::ErrorKind::Interrupted => {}
                Err(why) => return Err(io("read", &self.path, why)),
            }
        }
        let got = self.hasher.finish();
        if got == self.address {
            return Ok(left);
        }
        Err(RuntimeError::WrongBlob {
            expected: self.address,
            got,
        })
    }
}
