//! Checks that the disk has room for the files of a job.

use std::path::Path;

use anyhow::bail;
use concord_proto::JobSpec;

use super::output_dir::OutputDir;
use crate::support::bytes::size;
use crate::support::job_file::Steps;
use crate::support::kept_states;

/// Bytes of a result, or of a checkpoint's folder, besides its tensors: tokenizer, configuration,
/// proof.
const SMALL_FILES_BYTES: u64 = 1 << 20;

/// Bytes of a value in a result.
const VALUE_BYTES: u64 = 4;

/// Checkpoints that are on the disk at a time if audits are slow.
const CHECKPOINTS_MAX: u64 = 3;

/// Most files of an earlier run that are counted, more than a state has.
const FILES_MAX: usize = 1_000_000;

/// Bytes that a job writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The files of the result, and its folders of checkpoints.
    pub result: u64,
    /// The checkpoints that are certainly on the disk at the same time.
    pub checkpoints: u64,
    /// The checkpoints if audits are slow.
    checkpoints_max: u64,
    /// The states that are kept for replay: they lie where the checkpoints do, and in the end where
    /// the result is; on one disk these are the same files.
    pub replay: u64,
}

impl Needs {
    /// The bytes of a job with these steps, which keeps at most `limit` folders of checkpoints, or
    /// all for 0, and a state for replay after every `replay_every` steps, or none for 0.
    pub fn of(spec: &JobSpec, steps: &Steps, limit: u32, replay_every: u32) -> Self {
        let values = kept_states::trained_values(spec);
        let one = kept_states::state_bytes(spec);
        // The next checkpoint is written while the previous one is there. The last state is always
        // a checkpoint.
        let is_saved_before = (1..spec.steps).contains(&steps.save);
        let (least, most) = match is_saved_before {
            true => (2, CHECKPOINTS_MAX),
            false => (1, 1),
        };
        let weights = values.saturating_mul(VALUE_BYTES);
        let folders = match steps.has_folders {
            true => u64::from(most_folders(spec.steps, steps.save, limit)),
            false => 0,
        };
        let folder = weights.saturating_add(SMALL_FILES_BYTES);
        Self {
            result: weights
                .saturating_add(SMALL_FILES_BYTES)
                .saturating_add(folder.saturating_mul(folders)),
            checkpoints: one.saturating_mul(least),
            checkpoints_max: one.saturating_mul(most),
            replay: one.saturating_mul(kept_states::count(spec, replay_every).into()),
        }
    }
}

/// Free bytes on the disks of the two folders to which a job writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Free {
    /// Result and state on one disk.
    Together(u64),
    /// Free bytes for the result, and, if the state is kept on this machine, on its other disk.
    Apart(u64, Option<u64>),
}

/// Refuses a job if there is no room for its result in the output folder, or, with `state`, for the
/// checkpoints that a pool on this machine keeps in that folder. Warns where slow audits may need
/// more than is free.
///
/// # Errors
/// Saying what is needed and what is free.
pub fn check(output_dir: &OutputDir, needs: &Needs, state: Option<&Path>) -> anyhow::Result<()> {
    let Some(free) = measure(output_dir.dir(), state) else {
        return Ok(());
    };
    let output = output_dir.dir().display().to_string();
    let state = state.unwrap_or(output_dir.dir()).display().to_string();
    if let Some(warning) = decide(*needs, free, &output, &state)? {
        eprintln!("{warning}");
    }
    Ok(())
}

/// Decides between a refusal, a warning and nothing.
fn decide(needs: Needs, free: Free, output: &str, state: &str) -> anyhow::Result<Option<String>> {
    let (result, replay) = (needs.result, needs.replay);
    let (least, most) = (needs.checkpoints, needs.checkpoints_max);
    let kept = match replay {
        0 => String::new(),
        bytes => format!(", the states for replay {}", size(bytes)),
    };
    // More of these than of anything else can be spared.
    let fewer = match replay {
        0 => "",
        _ => ", keep fewer states (replay_steps)",
    };
    let lacks = |needed: u64, free: u64| free < needed;
    match free {
        Free::Together(free) => {
            let result = result.saturating_add(replay);
            let (needed, may_need) = (result.saturating_add(least), result.saturating_add(most));
            if lacks(needed, free) {
                bail!(
                    "output_dir: the result takes {}{kept} and the checkpoints until then {}, and \
                     the disk of {output} has {} left: make room{fewer}, choose another \
                     output_dir, or keep the checkpoints on another disk with --pool-dir",
                    size(needs.result),
                    size(least),
                    size(free)
                );
            }
            Ok(lacks(may_need, free).then(|| warning(output, free, may_need)))
        }
        Free::Apart(free, state_free) => {
            if lacks(result.saturating_add(replay), free) {
                bail!(
                    "output_dir: the result takes {}{kept}, and the disk of {output} has {} left: \
                     make room{fewer}, or choose another output_dir",
                    size(result),
                    size(free)
                );
            }
            let Some(free) = state_free else {
                return Ok(None);
            };
            let (least, most) = (least.saturating_add(replay), most.saturating_add(replay));
            if lacks(least, free) {
                bail!(
                    "--pool-dir: the checkpoints take {} and the disk of {state} has {} left: make \
                     room{fewer}, or choose another folder",
                    size(least),
                    size(free)
                );
            }
            Ok(lacks(most, free).then(|| warning(state, free, most)))
        }
    }
}

fn warning(place: &str, free: u64, may_need: u64) -> String {
    format!(
        "the disk of {place} has {} left, and the job may write {} to it; where that is too \
         little, it waits until there is room",
        size(free),
        size(may_need)
    )
}

/// The most folders of checkpoints at a time: the next one is written before the oldest is deleted.
fn most_folders(steps: u32, every: u32, limit: u32) -> u32 {
    let all = steps.div_ceil(every.max(1));
    match limit {
        0 => all,
        limit => all.min(limit.saturating_add(1)),
    }
}

/// The free bytes, including what an earlier run of the job has already written to `state`. `None`
/// where the system does not tell.
#[cfg(unix)]
fn measure(output: &Path, state: Option<&Path>) -> Option<Free> {
    let of_output = free_bytes(output)?;
    let Some(state) = state else {
        return Some(Free::Apart(of_output, None));
    };
    // A folder that does not exist yet will be on the disk of its nearest existing parent.
    let disk = state
        .ancestors()
        .find(|dir| dir.is_dir())
        .unwrap_or(Path::new("."));
    let written = written_bytes(state);
    let device = |dir: &Path| rustix::fs::stat(dir).ok().map(|stat| stat.st_dev);
    if device(disk)? == device(output)? {
        return Some(Free::Together(of_output.saturating_add(written)));
    }
    let of_state = free_bytes(disk)?.saturating_add(written);
    Some(Free::Apart(of_output, Some(of_state)))
}

#[cfg(not(unix))]
fn measure(_: &Path, _: Option<&Path>) -> Option<Free> {
    None
}

/// Bytes that this user may still write to the disk of a folder.
#[cfg(unix)]
fn free_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes of the files in a folder and its subfolders; links are not followed.
#[cfg(unix)]
fn written_bytes(dir: &Path) -> u64 {
    let mut folders = vec![dir.to_path_buf()];
    let (mut bytes, mut files) = (0_u64, 0);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            files += 1;
            if files > FILES_MAX {
                return bytes;
            }
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false => bytes = bytes.saturating_add(metadata.len()),
            }
        }
    }
    bytes
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        result: 4 << 20,
        checkpoints: 20 << 20,
        checkpoints_max: 30 << 20,
        replay: 0,
    };

    fn decided(free: Free) -> Result<Option<String>, String> {
        decide(NEEDS, free, "out", "state").map_err(|error| error.to_string())
    }

    #[test]
    fn result_and_checkpoints_on_one_disk_are_counted_together() {
        let refused = decided(Free::Together((24 << 20) - 1)).unwrap_err();
        for words in [
            "takes 4.0 MiB",
            "until then 20.0 MiB",
            "of out",
            "--pool-dir",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
        let warned = decided(Free::Together((34 << 20) - 1)).unwrap().unwrap();
        assert!(warned.contains("may write 34.0 MiB"), "{warned}");
        assert_eq!(decided(Free::Together(34 << 20)), Ok(None));
    }

    #[test]
    fn states_for_replay_need_room_once_on_each_disk() {
        let needs = Needs {
            replay: 50 << 20,
            ..NEEDS
        };
        let decided = |free| decide(needs, free, "out", "state").map_err(|error| error.to_string());
        let refused = decided(Free::Together((74 << 20) - 1)).unwrap_err();
        for words in [
            "takes 4.0 MiB, the states for replay 50.0 MiB",
            "replay_steps",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!(decided(Free::Together(84 << 20)), Ok(None));
        let refused = decided(Free::Apart((54 << 20) - 1, Some(u64::MAX))).unwrap_err();
        assert!(refused.contains("states for replay 50.0 MiB"), "{refused}");
        let refused = decided(Free::Apart(54 << 20, Some((70 << 20) - 1))).unwrap_err();
        assert!(refused.starts_with("--pool-dir"), "{refused}");
        assert_eq!(decided(Free::Apart(54 << 20, Some(80 << 20))), Ok(None));
    }

    #[test]
    fn each_disk_needs_room_for_what_comes_to_it() {
        let refused = decided(Free::Apart((4 << 20) - 1, Some(u64::MAX))).unwrap_err();
        assert!(
            refused.starts_with("output_dir: the result takes"),
            "{refused}"
        );
        let refused = decided(Free::Apart(4 << 20, Some((20 << 20) - 1))).unwrap_err();
        assert!(
            refused.starts_with("--pool-dir: the checkpoints take"),
            "{refused}"
        );
        let warned = decided(Free::Apart(4 << 20, Some(20 << 20))).unwrap();
        assert!(warned.is_some_and(|words| words.contains("of state")));
        assert_eq!(decided(Free::Apart(4 << 20, Some(30 << 20))), Ok(None));
        // The state is kept elsewhere.
        assert_eq!(decided(Free::Apart(4 << 20, None)), Ok(None));
    }

    #[test]
    fn what_an_earlier_run_has_written_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (output, state) = (folder.path(), folder.path().join("a/state"));
        assert_eq!(measure(&folder.path().join("missing"), None), None);
        let total = |state| match measure(output, state) {
            Some(Free::Together(free)) => free,
            other => panic!("{other:?}"),
        };
        assert!(
            total(Some(&*state)) > 0,
            "a folder that is to be made has a disk"
        );
        std::fs::create_dir_all(state.join("blobs")).unwrap();
        std::fs::write(state.join("blobs/one"), [0; 3_000]).unwrap();
        std::fs::write(state.join("two"), [0; 500]).unwrap();
        std::os::unix::fs::symlink("/nowhere", state.join("link")).unwrap();
        let link = "/nowhere".len() as u64;
        assert_eq!(written_bytes(&state), 3_500 + link);
    }
}
