//! The key that a worker or checker is known by, kept in its folder.

use std::path::Path;

use concord_proto::Keypair;

use crate::RuntimeError;

const KEY_FILE: &str = "identity.key";

/// The key of the folder `dir`, made on first use.
///
/// # Errors
/// [`RuntimeError::Io`] where the folder cannot be read or written, or the key is broken.
pub fn load_or_make(dir: &Path) -> Result<Keypair, RuntimeError> {
    let path = dir.join(KEY_FILE);
    let io = |action| {
        let path = path.display().to_string();
        move |source| RuntimeError::Io {
            action,
            path,
            source,
        }
    };
    match std::fs::read(&path) {
        Ok(bytes) => {
            let broken = || std::io::Error::other("a key has 32 bytes; remove it for a new one");
            let secret = bytes.try_into().map_err(|_| broken());
            secret.map(Keypair::from_secret).map_err(io("read"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret)
                .map_err(std::io::Error::other)
                .map_err(io("make"))?;
            std::fs::create_dir_all(dir).map_err(io("make"))?;
            write_private(&path, &secret).map_err(io("write"))?;
            Ok(Keypair::from_secret(secret))
        }
        Err(error) => Err(io("read")(error)),
    }
}

fn write_private(path: &Path, secret: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(secret)
}
