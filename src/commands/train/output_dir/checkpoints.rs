//! Folders `checkpoint-N` in the output folder: they appear whole, and go whole.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{OutputDir, files, remove_folder, sync};
use crate::support::result_names::CHECKPOINT;

/// The folder, within the output folder, in which one is assembled.
const STAGING_DIR: &str = ".concord-checkpoint";

/// The name that one has while it is deleted.
const OLD_DIR: &str = ".concord-old-checkpoint";

impl OutputDir {
    /// The folder of the checkpoint after `steps` steps.
    pub fn checkpoint_dir(&self, steps: u32) -> PathBuf {
        self.dir.join(format!("{CHECKPOINT}{steps}"))
    }

    /// An empty folder in which the next checkpoint is assembled.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn checkpoint_staging(&self) -> anyhow::Result<PathBuf> {
        self.forget_staging()?;
        let staging = self.dir.join(STAGING_DIR);
        std::fs::create_dir(&staging)
            .with_context(|| format!("cannot make {}", staging.display()))?;
        Ok(staging)
    }

    /// Removes what an interrupted run has left of checkpoints.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn forget_staging(&self) -> anyhow::Result<()> {
        remove_folder(&self.dir.join(STAGING_DIR))?;
        remove_folder(&self.dir.join(OLD_DIR))
    }

    /// The steps of the job's checkpoints that are there, the oldest first.
    pub fn checkpoints(&self) -> Vec<u32> {
        let mark = self.mark.iter();
        let steps = mark.flat_map(|mark| mark.checkpoints.keys().copied());
        steps
            .filter(|steps| self.checkpoint_dir(*steps).is_dir())
            .collect()
    }

    /// Whether the checkpoint after `steps` steps is there, with this state.
    pub fn has_checkpoint(&self, steps: u32, state: &str) -> bool {
        let mark = self.mark.as_ref();
        let noted = mark.and_then(|mark| mark.checkpoints.get(&steps));
        noted.is_some_and(|noted| noted == state) && self.checkpoint_dir(steps).is_dir()
    }

    /// Moves an assembled checkpoint into its place, by one rename, instead of an older one of the
    /// same steps.
    ///
    /// # Errors
    /// Where something else is in its place, or the disk is full.
    pub fn place_checkpoint(
        &mut self,
        staging: &Path,
        steps: u32,
        state: &str,
    ) -> anyhow::Result<()> {
        let target = self.checkpoint_dir(steps);
        if target.exists() {
            self.remove_checkpoint(steps)?;
        }
        let name = format!("{CHECKPOINT}{steps}");
        let within = |file: String| format!("{name}/{file}");
        let files: Vec<String> = files(staging)?.into_iter().map(within).collect();
        sync(staging)?;
        // Noted first: a folder that is not in the mark is taken for that of somebody else.
        self.note_files(&files)?;
        let moved = std::fs::rename(staging, &target);
        moved.with_context(|| format!("cannot put {} into its place", target.display()))?;
        let mark = self.mark.as_mut().context("the folder is not marked")?;
        mark.checkpoints.insert(steps, state.to_string());
        mark.write(&self.dir)?;
        sync(&self.dir)
    }

    /// Deletes a checkpoint of the job. It has another name first, so that no half of it is ever
    /// taken for a checkpoint.
    ///
    /// # Errors
    /// Where it has files that `concord train` did not write, which stays as it is.
    pub fn remove_checkpoint(&mut self, steps: u32) -> anyhow::Result<()> {
        let dir = self.checkpoint_dir(steps);
        let name = format!("{CHECKPOINT}{steps}");
        if dir.exists() {
            let strange = files(&dir)?
                .into_iter()
                .find(|file| !self.has_file(&format!("{name}/{file}")));
            if let Some(strange) = strange {
                bail!(
                    "{} is none of the job's and stays: move it away",
                    dir.join(strange).display()
                );
            }
            let old = self.dir.join(OLD_DIR);
            remove_folder(&old)?;
            let moved = std::fs::rename(&dir, &old);
            moved.with_context(|| format!("cannot remove {}", dir.display()))?;
            remove_folder(&old)?;
        }
        let mark = self.mark.as_mut().context("the folder is not marked")?;
        let within = format!("{name}/");
        mark.files.retain(|file| !file.starts_with(&within));
        mark.checkpoints.remove(&steps);
        mark.write(&self.dir)
    }
}
