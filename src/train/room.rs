//! Whether the disk has room for what a job leaves.

use std::path::Path;

use anyhow::bail;
use concord_proto::JobSpec;

use super::claim::Claim;
use crate::bytes::size;

/// A result is more than its tensors: tokenizer, configuration, proof.
const SMALL_FILES_BYTES: u64 = 1 << 20;

/// Bytes of a value in a result.
const VALUE_BYTES: u64 = 4;

/// Bytes of a trained value in a checkpoint: itself and two moments.
const CHECKPOINT_VALUE_BYTES: u64 = 12;

/// Checkpoints that are on the disk at a time, at most, as a rule.
const CHECKPOINTS: u64 = 3;

/// Refuses a job whose result has no room in the output folder, before its first step, and warns
/// where the checkpoints that are kept there meanwhile, with `keeps_state`, may have none.
///
/// # Errors
/// Saying what is needed and what there is.
pub fn check(claim: &Claim, spec: &JobSpec, keeps_state: bool) -> anyhow::Result<()> {
    let Some(free) = free(claim.dir()) else {
        return Ok(());
    };
    let place = claim.dir().display();
    let needed = result_bytes(spec);
    if free < needed {
        bail!(
            "output_dir: the result takes {} and the disk of {place} has {} left: make room, or \
             choose another output_dir",
            size(needed),
            size(free)
        );
    }
    let kept = match keeps_state {
        true => state_bytes(spec),
        false => 0,
    };
    if free < needed.saturating_add(kept) {
        eprintln!(
            "the disk of {place} has {} left: result and checkpoints may take {}; where that is \
             too little, the job waits until there is room",
            size(free),
            size(needed.saturating_add(kept))
        );
    }
    Ok(())
}

fn trained_values(spec: &JobSpec) -> u64 {
    let values = |shape: &[u64]| {
        shape
            .iter()
            .fold(1_u64, |all, &dim| all.saturating_mul(dim))
    };
    let tensors = spec.trainable.iter().map(|tensor| values(&tensor.shape));
    tensors.fold(0, u64::saturating_add)
}

/// Bytes of the files of a result.
fn result_bytes(spec: &JobSpec) -> u64 {
    let tensors = trained_values(spec).saturating_mul(VALUE_BYTES);
    tensors.saturating_add(SMALL_FILES_BYTES)
}

/// Bytes of the checkpoints that a pool on this machine keeps. The model is not copied: the store
/// links to its files, and the members read the store.
fn state_bytes(spec: &JobSpec) -> u64 {
    trained_values(spec).saturating_mul(CHECKPOINT_VALUE_BYTES * CHECKPOINTS)
}

/// Bytes that this user may still write to the disk of a folder; none where the system does not
/// tell.
fn free(dir: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_folder_has_some_room_and_one_that_is_not_there_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free(folder.path()).is_some_and(|bytes| bytes > 0));
        assert_eq!(free(&folder.path().join("missing")), None);
    }
}
