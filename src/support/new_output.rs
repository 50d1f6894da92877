//! A folder or file that a command makes: written beside its place, and put there when it is whole.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use crate::support::output::StoppedBySignal;
use crate::support::signals::EndSignals;

/// The file that the writing command locks.
const LOCK_FILE: &str = ".lock";

/// Gives `work` the path of a file or folder to make, in a hidden folder beside `place`, and moves
/// what it has made to `place`. Ctrl-C and SIGTERM end the work, and what was written is removed;
/// what a killed command has left is removed by the next one with the same `place`.
///
/// # Errors
/// Where `place` is there already, unless it is an empty folder; where it cannot be written; the
/// errors of `work`; [`StoppedBySignal`].
#[tokio::main(flavor = "current_thread")]
pub async fn make<T: Send + 'static>(
    place: &Path,
    work: impl FnOnce(&Path) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let staging = Staging::begin(place)?;
    let made = staging.made();
    let mut signals = EndSignals::install()?;
    let (send, done) = tokio::sync::oneshot::channel();
    // A thread of its own, which the end of the program does not wait for.
    std::thread::spawn(move || {
        // Nobody takes it where the user has stopped waiting.
        let _ = send.send(work(&made));
    });
    let result = tokio::select! {
        done = done => done.map_err(|_| anyhow!("the thread that writes has panicked"))??,
        signal = signals.next() => {
            let words = format!("stopped by {signal}; {} is not written", place.display());
            return Err(StoppedBySignal::new(signal, words).into());
        }
    };
    staging.finish(place)?;
    Ok(result)
}

/// The hidden folder; removed when this is dropped.
struct Staging {
    dir: PathBuf,
    name: PathBuf,
    _lock: File,
}

impl Staging {
    fn begin(place: &Path) -> anyhow::Result<Self> {
        let shown = place.display();
        let is_empty = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut dir| dir.next().is_none());
        if let Ok(found) = fs::symlink_metadata(place)
            && (found.is_symlink() || !is_empty(place))
        {
            bail!("--output: {shown} is there already, and is not replaced: choose another place");
        }
        let name = place
            .file_name()
            .with_context(|| format!("--output: {shown} has no name of its own"))?;
        let hidden = format!(".{}.concord-partial", name.to_string_lossy());
        let dir = place.with_file_name(hidden);
        let cannot = || format!("--output: cannot write {shown}");
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).with_context(cannot)?;
        }
        let made = fs::create_dir(&dir);
        // What a killed command has left is used again; what only has its name is not touched.
        let is_dir = |found: fs::Metadata| found.is_dir();
        if let Err(error) = made
            && !fs::symlink_metadata(&dir).is_ok_and(is_dir)
        {
            return Err(error).with_context(|| {
                format!(
                    "--output: {} cannot be used as the folder in which {shown} is made: if it is \
                     there, move it away",
                    dir.display()
                )
            });
        }
        let lock = open_lock(&dir.join(LOCK_FILE))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("--output: another command writes {shown}: wait until it ends")
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
        let staging = Self {
            name: name.into(),
            dir,
            _lock: lock,
        };
        remove(&staging.made()).with_context(cannot)?;
        Ok(staging)
    }

    /// What is made.
    fn made(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    fn finish(self, place: &Path) -> anyhow::Result<()> {
        // An empty folder may be there; one that is not empty any more stays, and is an error.
        let _ = fs::remove_dir(place);
        let placed = match fs::symlink_metadata(place) {
            Ok(_) => bail!("--output: {} was made meanwhile", place.display()),
            Err(_) => fs::rename(self.made(), place),
        };
        placed.with_context(|| format!("cannot put {} into its place", place.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next command with the same place tries again.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Opens the file that is locked. A link or a file with contents is not of a killed command, and
/// stays as it is.
fn open_lock(path: &Path) -> anyhow::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;

        // Opening a pipe must not wait for its other end.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.custom_flags(flags.bits() as i32);
    }
    let strange = || {
        format!(
            "--output: {} is not the empty file of an earlier command: move it away",
            path.display()
        )
    };
    let lock = options.open(path).with_context(strange)?;
    let found = lock.metadata().with_context(strange)?;
    match found.is_file() && found.len() == 0 {
        true => Ok(lock),
        false => bail!("{}", strange()),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_and_what_fails_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let write = |path: &Path| Ok(fs::write(path, "new")?);
        let error = make(&place, |path| {
            fs::write(path, "half")?;
            bail!("no more room")
        });
        let error: anyhow::Result<()> = error;
        assert!(error.unwrap_err().to_string().contains("no more room"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // As a killed command leaves it.
        fs::create_dir(folder.path().join(".out.concord-partial")).unwrap();
        fs::write(folder.path().join(".out.concord-partial/out"), "old").unwrap();
        make(&place, write).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        let error = make(&place, write).unwrap_err().to_string();
        assert!(error.contains("is there already"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_others_planted_in_its_place_is_neither_followed_nor_changed() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let (place, mine) = (folder.path().join("out"), folder.path().join("mine"));
        let partial = folder.path().join(".out.concord-partial");
        fs::create_dir(&mine).unwrap();
        fs::write(mine.join("out"), "precious").unwrap();
        let refused = |word: &str| {
            let error: anyhow::Result<()> = make(&place, |_| panic!("no work is done"));
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.contains(word), "{error}");
            assert_eq!(fs::read(mine.join("out")).unwrap(), b"precious");
            assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
        };
        symlink(&mine, &partial).unwrap();
        refused(".out.concord-partial");
        fs::remove_file(&partial).unwrap();
        fs::create_dir(&partial).unwrap();
        symlink(mine.join("out"), partial.join(LOCK_FILE)).unwrap();
        refused("concord-partial/.lock");
        fs::remove_file(partial.join(LOCK_FILE)).unwrap();
        fs::hard_link(mine.join("out"), partial.join(LOCK_FILE)).unwrap();
        refused("concord-partial/.lock");
        fs::remove_dir_all(&partial).unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        symlink(folder.path().join("empty"), &place).unwrap();
        refused("is there already");
    }
}
