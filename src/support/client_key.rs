//! The key that a user of this machine is known by to coordinators: who submits a job with it may
//! watch and cancel it and fetch its result.

use std::path::PathBuf;
use std::sync::OnceLock;

use concord_proto::Keypair;
use concord_runtime::{RuntimeError, identity};

/// Names the folder of the key, in place of the one in the user's home.
const DIR_VARIABLE: &str = "CONCORD_CLIENT_DIR";

static KEY: OnceLock<Keypair> = OnceLock::new();

/// The key of the user, made on first use; one for this process alone where there is no folder to
/// keep one in.
///
/// # Errors
/// Where the key that is kept cannot be read, or is broken.
pub fn key() -> anyhow::Result<Keypair> {
    if let Some(key) = KEY.get() {
        return Ok(key.clone());
    }
    let made = match folder().map(|folder| identity::load_or_make(&folder)) {
        Some(Ok(key)) => key,
        // A home that cannot be written, as in many containers.
        Some(Err(RuntimeError::Io { action, path, why })) if action != "read" => {
            tracing::warn!("no key is kept, as {path} cannot be used: {why}");
            identity::fresh()?
        }
        Some(Err(error)) => return Err(error.into()),
        None => identity::fresh()?,
    };
    Ok(KEY.get_or_init(|| made).clone())
}

/// The folder of the user's key, if there is one.
pub fn folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = || {
        let home = || named("HOME").map(|home| PathBuf::from(home).join(".config"));
        let config = named("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
        Some(config.join("concord"))
    };
    named(DIR_VARIABLE).map(PathBuf::from).or_else(config)
}
