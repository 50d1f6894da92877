//! The key that a user of this machine is known by to coordinators: who submits a job with it may
//! watch and cancel it and fetch its result.

use std::path::PathBuf;
use std::sync::OnceLock;

use concord_proto::Keypair;
use concord_runtime::identity;

/// Names the folder of the key, in place of the one in the user's home.
const DIR_VARIABLE: &str = "CONCORD_CLIENT_DIR";

static KEY: OnceLock<Keypair> = OnceLock::new();

/// The key of the user, made on first use; one for this process alone where it runs a pool of its
/// own ([`use_for_own_pool`]), or where there is no home to keep one in.
///
/// # Errors
/// Where the folder cannot be read or written, or the key in it is broken.
pub fn key() -> anyhow::Result<Keypair> {
    if let Some(key) = KEY.get() {
        return Ok(key.clone());
    }
    let made = match folder() {
        Some(folder) => identity::load_or_make(&folder)?,
        None => identity::fresh()?,
    };
    Ok(KEY.get_or_init(|| made).clone())
}

/// Takes a key that ends with this process, because its pool does, too: nothing is written to the
/// user's home. Gives the key that counts.
///
/// # Errors
/// Where the system has no random numbers.
pub fn use_for_own_pool() -> anyhow::Result<Keypair> {
    let made = identity::fresh()?;
    Ok(KEY.get_or_init(|| made).clone())
}

fn folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = || {
        let home = || named("HOME").map(|home| PathBuf::from(home).join(".config"));
        let config = named("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
        Some(config.join("concord"))
    };
    named(DIR_VARIABLE).map(PathBuf::from).or_else(config)
}
