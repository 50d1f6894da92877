//! Small files that outlive a crash: each is old or new as a whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Puts `bytes` in the place of a file, on the disk before it returns.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The name, too. Not every system lets a folder be opened for that.
    if let Some(Ok(folder)) = path.parent().map(File::open) {
        folder.sync_all()?;
    }
    Ok(())
}
