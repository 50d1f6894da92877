//! The test vectors of `shared/`.

use std::path::{Path, PathBuf};

use concord_models::weights::TensorFile;

/// A path in `shared/reference/packed`, or `None` with a line that says that the test is skipped.
pub fn packed(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("CONCORD_SHARED").map_or(beside, PathBuf::from);
    let found = shared.join("reference/packed").join(name);
    if found.exists() {
        return Some(found);
    }
    println!(
        "skipped: {} is not there; set CONCORD_SHARED",
        found.display()
    );
    None
}

/// The bits of an F32 tensor.
pub fn bits(file: &TensorFile, name: &str) -> Vec<u32> {
    let words = file.bytes(name).unwrap().as_chunks().0.iter();
    words.map(|word| u32::from_le_bytes(*word)).collect()
}

/// Asserts that numbers have the bits of `expected`.
#[track_caller]
pub fn assert_bits(found: &[f32], expected: &[u32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: numbers");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let wanted = f32::from_bits(*expected);
        assert!(
            found.to_bits() == *expected || found.is_nan() && wanted.is_nan(),
            "{what}: number {i} is {found:e}, not {wanted:e}"
        );
    }
}
