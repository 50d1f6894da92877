//! Temporary folders. Those that a killed command leaves behind are removed by the next command.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

/// The prefix of the folders' names; the process id follows, as information for users.
const PREFIX: &str = "concord-";

/// The file that marks such a folder. Its owner holds a lock on it, which always ends with the
/// process. It is removed last, so that a partly removed folder is still recognized.
const MARKER: &str = ".concord-scratch";

/// How long a start may take to remove folders of killed commands; the rest is left to the next
/// one.
const SWEEP_MAX: Duration = Duration::from_secs(5);

/// The pause before a second attempt to remove a folder: a process that is about to end may still
/// write into it.
const RETRY: Duration = Duration::from_millis(100);

/// A temporary folder, removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    // Held as long as the folder is in use.
    _lock: File,
    _folder_lock: Option<File>,
}

impl Scratch {
    /// Creates one in the folder for temporary files (`TMPDIR`), after [`sweep`].
    ///
    /// # Errors
    /// Naming the folder in which it cannot be created.
    pub fn make() -> anyhow::Result<Self> {
        sweep();
        Self::within(&std::env::temp_dir())
    }

    fn within(place: &Path) -> anyhow::Result<Self> {
        let failed = || {
            let place = place.display();
            format!("cannot make a temporary folder in {place}: set TMPDIR to a folder with room")
        };
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(place);
        let made = made.with_context(failed)?;
        // The marker gets its name only after it is locked, because a marker without a lock belongs
        // to a dead process.
        let new = made.path().join("new");
        let lock = File::create_new(&new).with_context(failed)?;
        let marked = match lock.lock() {
            Ok(()) => fs::rename(new, made.path().join(MARKER)),
            // A file system without locks. Whether the owner is alive could not be told, so the
            // folder gets no marker and is never swept.
            Err(_) => fs::remove_file(new),
        };
        marked.with_context(failed)?;
        let dir = made.keep();
        Ok(Self {
            _folder_lock: locked_folder(&dir),
            _lock: lock,
            dir,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_twice(&self.dir) {
            let dir = self.dir.display();
            eprintln!(
                "cannot remove the temporary folder {dir}: {error}; the next start tries again"
            );
        }
    }
}

/// Removes the temporary folders that killed commands of this user have left. Those that cannot be
/// removed now are left to the next start.
pub fn sweep() {
    sweep_within(&std::env::temp_dir(), Instant::now() + SWEEP_MAX);
}

fn sweep_within(place: &Path, until: Instant) {
    // The user as whom this process creates files.
    let user = tempfile::tempfile_in(place).and_then(|file| Ok(owner(&file.metadata()?)));
    let (Ok(user), Ok(entries)) = (user, fs::read_dir(place)) else {
        return;
    };
    for entry in entries.flatten() {
        if Instant::now() > until {
            return;
        }
        let is_named = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        if is_named && let Some(lock) = left_behind(&entry.path(), user) {
            let dir = entry.path();
            if let Err(error) = remove_twice(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "what a killed command left stays");
            }
            drop(lock);
        }
    }
}

/// The lock of a folder whose owner has ended; `None` for any other folder. Links are not followed,
/// and folders of other users are ignored.
fn left_behind(dir: &Path, user: u32) -> Option<File> {
    let marker = dir.join(MARKER);
    let is_dir = |found: fs::Metadata| found.is_dir() && owner(&found) == user;
    let is_file = |found: fs::Metadata| found.is_file() && owner(&found) == user;
    if !fs::symlink_metadata(dir).is_ok_and(is_dir)
        || !fs::symlink_metadata(&marker).is_ok_and(is_file)
    {
        return None;
    }
    let lock = File::options().read(true).write(true).open(&marker).ok()?;
    match lock.try_lock() {
        // The process that held the lock may have removed the folder meanwhile, and another folder
        // may have its name now.
        Ok(()) => is_same(&lock, &marker).then_some(lock),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

/// A lock on the folder itself, where the system has such locks. Programs that remove old temporary
/// files, such as systemd-tmpfiles, skip a locked folder.
fn locked_folder(dir: &Path) -> Option<File> {
    let folder = File::open(dir).ok()?;
    folder.try_lock().ok()?;
    Some(folder)
}

/// The user that owns a file.
#[cfg(unix)]
fn owner(found: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(found)
}

/// On other systems each user has an own folder for temporary files.
#[cfg(not(unix))]
fn owner(_found: &fs::Metadata) -> u32 {
    0
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(there)) => place(file) == place(there),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_same(_file: &File, path: &Path) -> bool {
    path.is_file()
}

fn remove_twice(dir: &Path) -> io::Result<()> {
    remove(dir).or_else(|_| {
        std::thread::sleep(RETRY);
        remove(dir)
    })
}

/// Removes a folder and what is in it, the marker last.
fn remove(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return there(Err(error)),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        there(match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        })?;
    }
    there(fs::remove_file(dir.join(MARKER)))?;
    there(fs::remove_dir(dir))
}

/// Treats a file that does not exist as removed.
fn there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::{MARKER, Scratch, sweep_within};

    fn sweep(place: &Path) {
        sweep_within(place, Instant::now() + Duration::from_secs(60));
    }

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A folder as a killed command leaves it.
    fn left(place: &Path, name: &str) {
        let dir = place.join(name);
        fs::create_dir_all(dir.join("worker-0/blobs")).unwrap();
        fs::write(dir.join("worker-0/blobs/one"), "bytes").unwrap();
        fs::write(dir.join(MARKER), "").unwrap();
    }

    #[test]
    fn a_folder_goes_with_its_owner() {
        let place = tempfile::tempdir().unwrap();
        let scratch = Scratch::within(place.path()).unwrap();
        fs::create_dir(scratch.path().join("sub")).unwrap();
        fs::write(scratch.path().join("sub/file"), "bytes").unwrap();
        assert_eq!(names(place.path()).len(), 1);
        drop(scratch);
        assert_eq!(names(place.path()), [""; 0]);
    }

    #[test]
    fn the_dead_are_removed_and_the_living_stay() {
        let place = tempfile::tempdir().unwrap();
        let alive = Scratch::within(place.path()).unwrap();
        fs::write(alive.path().join("file"), "bytes").unwrap();
        left(place.path(), "concord-1-dead");
        sweep(place.path());
        let name = alive.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(names(place.path()), [name]);
        assert!(alive.path().join("file").exists());
    }

    #[test]
    fn what_is_not_known_is_not_touched() {
        let place = tempfile::tempdir().unwrap();
        // A folder of another program, one that a user named so, and one that only looks similar.
        left(place.path(), "other-1-dead");
        fs::create_dir(place.path().join("concord-data")).unwrap();
        fs::write(place.path().join("concord-data/model"), "bytes").unwrap();
        fs::write(place.path().join("concord-file"), "bytes").unwrap();
        let before = names(place.path());
        sweep(place.path());
        assert_eq!(names(place.path()), before);
        assert!(place.path().join("concord-data/model").exists());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        use std::os::unix::fs::symlink;
        let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        left(elsewhere.path(), "precious");
        let target = elsewhere.path().join("precious");
        symlink(&target, place.path().join("concord-1-link")).unwrap();
        // A link inside is removed, but not its target.
        left(place.path(), "concord-2-dead");
        symlink(&target, place.path().join("concord-2-dead/link")).unwrap();
        let marked = place.path().join("concord-3-marker");
        fs::create_dir(&marked).unwrap();
        symlink(target.join(MARKER), marked.join(MARKER)).unwrap();
        sweep(place.path());
        assert_eq!(names(place.path()), ["concord-1-link", "concord-3-marker"]);
        assert!(target.join("worker-0/blobs/one").exists());
        assert!(target.join(MARKER).exists());
    }

    #[test]
    fn two_who_sweep_at_a_time_do_not_disturb_each_other() {
        let place = tempfile::tempdir().unwrap();
        for number in 0..20 {
            left(place.path(), &format!("concord-{number}-dead"));
        }
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| sweep(place.path()));
            }
        });
        assert_eq!(names(place.path()), [""; 0]);
    }
}
