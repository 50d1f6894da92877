//! The content-addressed store: tensors, manifests, data, bundles.
//!
//! A blob is written under a temporary name and renamed to its address once its digest is known, so
//! that whatever lies under an address is complete. Digests are checked when a blob is written and
//! again when it is read.

mod linked;
mod removal;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::blob_store::blob_file;
use concord_proto::limits::{BLOB_BYTES_MAX, CHUNK_BYTES, MESSAGE_BYTES_MAX};
use concord_proto::tensor::{AddressHasher, address_of};
use concord_proto::{Digest, canonical};
use futures_util::{Stream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};

pub use removal::SPARED;

/// Why a blob cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The store does not have it.
    #[error("the store has no blob {0}")]
    Missing(Digest),
    /// Its bytes have another digest than its address.
    #[error("the blob {0} is damaged: its bytes have another digest; delete it and put it again")]
    Damaged(Digest),
    /// It is longer than a blob may be.
    #[error("a blob of over {0} bytes")]
    TooLong(u64),
    /// It is not a manifest of the kind that was asked for.
    #[error("the blob {address} is no manifest: {why}")]
    NotManifest {
        /// The blob.
        address: Digest,
        /// Why it cannot be decoded.
        why: String,
    },
    /// The disk is full.
    #[error("no room is left on the disk of {}: free some, nothing is lost", .0.display())]
    Full(PathBuf),
    /// The sender stopped before its end.
    #[error("the sender stopped in the middle of a blob: {0}")]
    Broken(String),
    /// A blob that is not copied into the store cannot be read where it lies.
    #[error("cannot read {}, of which a blob is a part: {why}", path.display())]
    Linked {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        why: std::io::Error,
    },
    /// The object store fails.
    #[error("the object store in {} refuses: {why}", path.display())]
    Store {
        /// Its folder.
        path: PathBuf,
        /// Its error.
        why: object_store::Error,
    },
}

type Result<T> = std::result::Result<T, BlobError>;

/// A blob in pieces of at most [`CHUNK_BYTES`].
type Pieces = Pin<Box<dyn Stream<Item = Result<Vec<u8>>> + Send>>;

impl BlobError {
    fn folder(path: &Path, why: std::io::Error) -> Self {
        Self::Store {
            path: path.to_path_buf(),
            why: object_store::Error::Generic {
                store: "folder",
                source: why.into(),
            },
        }
    }
}

/// The store of blobs in a folder.
///
/// ```
/// use concord_coordinator::blobs::BlobStore;
/// use concord_proto::{Digest, Domain};
/// use futures_util::TryStreamExt;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let blobs = BlobStore::open(folder.path())?;
/// let address = blobs.put(b"a tensor".to_vec()).await?;
/// assert_eq!(address, Digest::of(Domain::Blob, b"a tensor"));
/// let pieces: Vec<Vec<u8>> = blobs.get(&address).await?.try_collect().await?;
/// assert_eq!(pieces.concat(), b"a tensor");
/// # Ok(())
/// # }
/// ```
pub struct BlobStore {
    folder: PathBuf,
    store: LocalFileSystem,
    /// Number of the next temporary file.
    next: AtomicU64,
    claims: removal::Claims,
}

impl BlobStore {
    /// Opens the store in `folder`, or makes one. What an earlier process left half written is
    /// removed.
    ///
    /// # Errors
    /// [`BlobError`] where the folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self> {
        let failed = |why: std::io::Error| BlobError::folder(folder, why);
        let incoming = folder.join("incoming");
        if incoming.exists() {
            std::fs::remove_dir_all(&incoming).map_err(failed)?;
        }
        std::fs::create_dir_all(&incoming).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|why| BlobError::Store {
            path: folder.to_path_buf(),
            why,
        })?;
        Ok(Self {
            folder: folder.to_path_buf(),
            store: store.with_fsync(true),
            next: AtomicU64::new(0),
            claims: removal::Claims::default(),
        })
    }

    /// Stores a blob whose bytes are in memory.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn put(&self, bytes: Vec<u8>) -> Result<Digest> {
        let address = address_of(&bytes);
        if !self.has(&address).await? {
            let incoming = self.incoming();
            let put = self.store.put(&incoming, PutPayload::from(bytes)).await;
            put.map_err(|why| self.failed(why))?;
            self.place(&incoming, &address).await?;
        }
        Ok(address)
    }

    /// Stores a blob that comes in pieces. If the stream ends with an error, what was written is
    /// removed.
    ///
    /// # Errors
    /// [`BlobError`]; [`BlobError::Broken`] with the error of the stream.
    pub async fn put_stream(
        &self,
        mut pieces: impl Stream<Item = std::result::Result<Vec<u8>, String>> + Unpin,
    ) -> Result<Digest> {
        let incoming = self.incoming();
        let upload = self.store.put_multipart(&incoming).await;
        let mut upload = upload.map_err(|why| self.failed(why))?;
        match self.receive(&mut pieces, &mut *upload).await {
            Ok(address) => {
                let done = upload.complete().await;
                done.map_err(|why| self.failed(why))?;
                // What is there stays: the same numbers in another form have the same address, and
                // plans may count on the form.
                match self.has(&address).await? {
                    true => self.drop_incoming(&incoming).await?,
                    false => self.place(&incoming, &address).await?,
                }
                Ok(address)
            }
            Err(error) => {
                // Removes what was written; if that fails, too, the next start removes it.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    async fn receive(
        &self,
        pieces: &mut (impl Stream<Item = std::result::Result<Vec<u8>, String>> + Unpin),
        upload: &mut dyn MultipartUpload,
    ) -> Result<Digest> {
        let mut hasher = AddressHasher::default();
        let mut total = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(BlobError::Broken)?;
            total += piece.len() as u64;
            if total > BLOB_BYTES_MAX {
                return Err(BlobError::TooLong(BLOB_BYTES_MAX));
            }
            hasher.update(&piece);
            let put = upload.put_part(PutPayload::from(piece)).await;
            put.map_err(|why| self.failed(why))?;
        }
        Ok(hasher.finish())
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    /// [`BlobError`] of the store.
    pub async fn has(&self, address: &Digest) -> Result<bool> {
        match self.store.head(&place(address)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(self.linked(address).await.is_some()),
            Err(why) => Err(self.failed(why)),
        }
    }

    /// Which of `addresses` are not there.
    ///
    /// # Errors
    /// [`BlobError`] of the store.
    pub async fn missing(&self, addresses: &[Digest]) -> Result<Vec<Digest>> {
        let mut missing = Vec::new();
        for address in addresses {
            if !self.has(address).await? {
                missing.push(*address);
            }
        }
        Ok(missing)
    }

    /// Reads a blob in pieces of at most [`CHUNK_BYTES`]. The last item is an error if the bytes
    /// turn out to have another digest than `address`.
    ///
    /// # Errors
    /// [`BlobError::Missing`], or an error of the store.
    pub async fn get(
        &self,
        address: &Digest,
    ) -> Result<impl Stream<Item = Result<Vec<u8>>> + Send + use<>> {
        let pieces = match self.store.get(&place(address)).await {
            Ok(found) => self.pieces(found),
            Err(object_store::Error::NotFound { .. }) => match self.linked(address).await {
                Some(link) => linked::pieces(link),
                None => return Err(BlobError::Missing(*address)),
            },
            Err(why) => return Err(self.failed(why)),
        };
        Ok(checked(pieces, *address))
    }

    fn pieces(&self, found: object_store::GetResult) -> Pieces {
        let folder = self.folder.clone();
        let pieces = found.into_stream().flat_map(move |piece| {
            let items: Vec<Result<Vec<u8>>> = match piece {
                Ok(bytes) => bytes
                    .chunks(CHUNK_BYTES)
                    .map(|chunk| Ok(chunk.to_vec()))
                    .collect(),
                Err(why) => {
                    let path = folder.clone();
                    vec![Err(BlobError::Store { path, why })]
                }
            };
            futures_util::stream::iter(items)
        });
        Box::pin(pieces)
    }

    /// Reads a small blob and decodes it as a manifest.
    ///
    /// # Errors
    /// [`BlobError`]; [`BlobError::NotManifest`] where it is another kind of blob.
    pub async fn manifest<T: BorshSerialize + BorshDeserialize>(
        &self,
        address: &Digest,
    ) -> Result<T> {
        let mut pieces = std::pin::pin!(self.get(address).await?);
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            bytes.extend(piece?);
            if bytes.len() > MESSAGE_BYTES_MAX {
                return Err(BlobError::TooLong(MESSAGE_BYTES_MAX as u64));
            }
        }
        canonical::decode(&bytes).map_err(|why| BlobError::NotManifest {
            address: *address,
            why: why.to_string(),
        })
    }

    fn incoming(&self) -> object_store::path::Path {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        object_store::path::Path::from(format!("incoming/{number}"))
    }

    async fn place(&self, incoming: &object_store::path::Path, address: &Digest) -> Result<()> {
        let placed = self.store.rename(incoming, &place(address)).await;
        placed.map_err(|why| self.failed(why))
    }

    async fn drop_incoming(&self, incoming: &object_store::path::Path) -> Result<()> {
        let dropped = self.store.delete(incoming).await;
        dropped.map_err(|why| self.failed(why))
    }

    fn failed(&self, why: object_store::Error) -> BlobError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&why);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull) {
                return BlobError::Full(self.folder.clone());
            }
            cause = error.source();
        }
        let path = self.folder.clone();
        BlobError::Store { path, why }
    }
}

/// Passes pieces on; after the last one, adds an error if their digest is not `address`.
fn checked(pieces: Pieces, address: Digest) -> impl Stream<Item = Result<Vec<u8>>> + Send + use<> {
    let mut hasher = Some(AddressHasher::default());
    let end = futures_util::stream::once(async { None });
    pieces.map(Some).chain(end).filter_map(move |piece| {
        let item = match piece {
            Some(Ok(bytes)) => {
                if let Some(hasher) = &mut hasher {
                    hasher.update(&bytes);
                }
                Some(Ok(bytes))
            }
            Some(Err(error)) => {
                hasher = None;
                Some(Err(error))
            }
            None => {
                let got = hasher.take().map(|hasher| hasher.finish());
                got.filter(|got| *got != address)
                    .map(|_| Err(BlobError::Damaged(address)))
            }
        };
        std::future::ready(item)
    })
}

/// The path of a blob in the store.
fn place(address: &Digest) -> object_store::path::Path {
    object_store::path::Path::from(blob_file(address))
}
