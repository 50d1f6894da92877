//! Puts the states that a job has kept for replay into its proof.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use concord_models::export;
use concord_proto::blob_store::blob_file;
use concord_proto::client::ClientRequest;
use concord_proto::{Digest, JobId};
use concord_runtime::{RuntimeError, blobs};
use concord_verify::training::bundle::Bundle;
use concord_verify::training::segments::steps_after_update;

use crate::support::client::Client;
use crate::support::kept_states::{self, StatesIndex};
use crate::support::output::counted;
use crate::support::result_names::{PROOF, STATES, STATES_INDEX};

/// Which states a job keeps, and where from.
#[derive(Clone, Debug, Default)]
pub struct ReplayStates {
    /// Steps between two of them; 0 where none are kept.
    pub every: u32,
    /// The store of the coordinator, where it is on this machine: its files are linked, not copied.
    pub store: Option<PathBuf>,
}

impl ReplayStates {
    /// Puts the states into the folder `staging` of a result, as the claims of its proof name them.
    /// One that the coordinator no longer has is left out of the list, and named on stderr: its
    /// segment becomes a part of the one before. Returns the updates after which there is one.
    ///
    /// # Errors
    /// Where the coordinator is out of reach, or the disk is full.
    pub async fn put(
        &self,
        client: &Client,
        bundle: &Bundle,
        staging: &Path,
    ) -> anyhow::Result<Vec<u32>> {
        let folder = staging.join(PROOF).join(STATES);
        let (mut index, mut gone) = (StatesIndex::default(), Vec::new());
        let end = bundle.records.len() as u32;
        for update in kept_states::updates(&bundle.spec, self.every) {
            let steps = steps_after_update(&bundle.spec, update);
            // With patience, a job may end before.
            let Some(steps) = steps.filter(|steps| *steps < end) else {
                break;
            };
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            match self.put_one(client, bundle, steps, &folder).await? {
                true => index.updates.push(update),
                false => gone.push(update),
            }
        }
        if let Some(first) = gone.first() {
            eprintln!(
                "{} for replay, the first that after step {first}: the coordinator no longer has \
                 them; the segments of the proof are longer",
                match gone.len() {
                    1 => "1 state is not kept".to_string(),
                    count => format!("{} are not kept", counted(count as u64, "state")),
                }
            );
        }
        if !index.updates.is_empty() {
            let text = serde_json::to_string(&index).context(STATES_INDEX)?;
            let path = folder.join(STATES_INDEX);
            export::replace_file(&path, |out| writeln!(out, "{text}"))?;
        }
        Ok(index.updates)
    }

    /// Puts one state there; false where a part of it is gone.
    async fn put_one(
        &self,
        client: &Client,
        bundle: &Bundle,
        steps: u32,
        folder: &Path,
    ) -> anyhow::Result<bool> {
        let entries = bundle.state_after(steps);
        let entries = entries.context("the proof has no claims of a state that was kept")?;
        let parts = entries.iter();
        let parts = parts.flat_map(|entry| [entry.value, entry.first_moment, entry.second_moment]);
        let mut placed = Vec::new();
        for address in parts.collect::<BTreeSet<Digest>>() {
            let path = folder.join(address.to_string());
            if path.exists() {
                continue;
            }
            if !self.link(address, &path) {
                let bytes = blobs::fetch_from_coordinator(client.channel(), address).await;
                let bytes = match bytes {
                    Err(RuntimeError::MissingBlob(_)) => {
                        // Nobody asks for a part of a state.
                        placed.iter().try_for_each(std::fs::remove_file)?;
                        return Ok(false);
                    }
                    bytes => bytes?,
                };
                export::replace_file(&path, |out| out.write_all(&bytes))?;
            }
            placed.push(path);
        }
        Ok(true)
    }

    /// Links a file of the store, if that can be done: it may be on another disk.
    fn link(&self, address: Digest, path: &Path) -> bool {
        let store = self.store.as_ref();
        store.is_some_and(|store| std::fs::hard_link(store.join(blob_file(&address)), path).is_ok())
    }

    /// Tells the coordinator that the states are here, so that it can drop its own. A store of this
    /// command is dropped as a whole.
    ///
    /// # Errors
    /// Where it is out of reach.
    pub async fn release(
        &self,
        client: &Client,
        job: JobId,
        updates: &[u32],
    ) -> anyhow::Result<()> {
        if self.store.is_some() {
            return Ok(());
        }
        for &steps in updates {
            client.call(&ClientRequest::Fetched { job, steps }).await?;
        }
        Ok(())
    }
}
