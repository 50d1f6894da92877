//! The key that a worker or checker is known by, kept in its folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use concord_proto::Keypair;

use crate::RuntimeError;

const KEY_FILE: &str = "identity.key";

/// Held by the process whose folder it is in.
pub const LOCK_FILE: &str = "member.lock";

/// Where a member keeps the blobs that it has fetched.
pub(crate) const BLOBS: &str = "blobs";

/// A folder, held by this process alone: of two processes with one key, a coordinator refuses one.
pub(crate) struct Home {
    /// The key that is kept in it.
    pub(crate) key: Keypair,
    // The system unlocks it when the process ends, in whatever way.
    _lock: File,
}

impl Home {
    /// Takes the folder `dir`; makes folder and key on first use.
    ///
    /// # Errors
    /// [`RuntimeError::FolderInUse`]; [`RuntimeError::Io`] where the folder cannot be read or
    /// written, or the key is broken.
    pub(crate) fn open(dir: &Path) -> Result<Self, RuntimeError> {
        let path = dir.display().to_string();
        let io = |why| RuntimeError::Io {
            action: "use",
            path: path.clone(),
            why,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        let lock = File::create(dir.join(LOCK_FILE)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RuntimeError::FolderInUse(path)),
            Err(TryLockError::Error(why)) => return Err(io(why)),
        }
        crate::blobs::remove_partial(&dir.join(BLOBS))?;
        Ok(Self {
            key: load_or_make(dir)?,
            _lock: lock,
        })
    }
}

/// The key of the folder `dir`, made on first use.
///
/// # Errors
/// [`RuntimeError::Io`] where the folder cannot be read or written, or the key is broken.
pub fn load_or_make(dir: &Path) -> Result<Keypair, RuntimeError> {
    let path = dir.join(KEY_FILE);
    let io = |action| {
        let path = path.display().to_string();
        move |why| RuntimeError::Io { action, path, why }
    };
    match std::fs::read(&path) {
        Ok(bytes) => {
            let broken = || std::io::Error::other("a key has 32 bytes; remove it for a new one");
            let secret = bytes.try_into().map_err(|_| broken());
            secret.map(Keypair::from_secret).map_err(io("read"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = fresh_secret().map_err(io("make"))?;
            std::fs::create_dir_all(dir).map_err(io("make"))?;
            write_private(&path, &secret).map_err(io("write"))?;
            Ok(Keypair::from_secret(secret))
        }
        Err(error) => Err(io("read")(error)),
    }
}

/// A key that is kept nowhere.
///
/// # Errors
/// [`RuntimeError::Io`] where the system has no random numbers.
pub fn fresh() -> Result<Keypair, RuntimeError> {
    let secret = fresh_secret().map_err(|why| RuntimeError::Io {
        action: "make",
        path: "a key".to_string(),
        why,
    })?;
    Ok(Keypair::from_secret(secret))
}

fn fresh_secret() -> std::io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
    Ok(secret)
}

fn write_private(path: &Path, secret: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(secret)
}
