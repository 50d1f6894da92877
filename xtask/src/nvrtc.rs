//! Where the compiler of kernels is.

use std::path::PathBuf;

use crate::root;

/// Where the set-up leaves it.
pub const FOLDER: &str = "target/nvrtc";

/// Whether the environment names one.
pub fn is_named() -> bool {
    std::env::var_os("CONCORD_NVRTC").is_some_and(|value| !value.is_empty())
}

/// Where builds are to take it from, if it was fetched and the environment names no other.
pub fn fetched() -> Option<PathBuf> {
    let library = root().join(FOLDER).join("nvidia/cuda_nvrtc/lib");
    (!is_named() && library.is_dir()).then_some(library)
}
