//! Deletes blobs that no job needs any more: the states of old checkpoints at once, all others when
//! they have been there for a while.
//!
//! Changes are persisted first. A crash before the blobs are deleted leaves blobs that nothing
//! names, and these are deleted once they are old. While a manifest of a job that is not over
//! cannot be read, any blob may be that job's: then nothing is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_proto::manifest::{DataManifest, ModelManifest, StateManifest};
use concord_proto::{Digest, Domain, JobId, JobSpec};
use tokio::task::JoinHandle;

use super::references::{JobBlobs, References};
use crate::blobs::{BlobError, BlobStore, SPARED};
use crate::core::{Change, Persisted};

/// How often the whole store is looked through, and manifests that could not be read are read
/// again.
const EVERY: Duration = Duration::from_secs(600);

/// Old blobs that are looked at in one tick.
const AT_ONCE: usize = 256;

/// Knows which blobs jobs need, and deletes the others.
pub(super) struct Sweeper {
    blobs: Arc<BlobStore>,
    references: References,
    /// Jobs with a manifest that could not be read, to be read again.
    unread: BTreeMap<JobId, JobSpec>,
    /// When manifests were last read again.
    read: Instant,
    /// When the whole store was last looked through.
    swept: Option<Instant>,
    /// The task that looks for old blobs.
    looking: Option<JoinHandle<Result<Vec<Digest>, BlobError>>>,
    /// What it found, and has not been looked at.
    aged: Vec<Digest>,
}

impl Sweeper {
    /// Learns what the persisted jobs need.
    pub(super) async fn new(persisted: &Persisted, blobs: Arc<BlobStore>) -> Self {
        let mut sweeper = Self {
            blobs,
            references: References::default(),
            unread: BTreeMap::new(),
            read: Instant::now(),
            swept: None,
            looking: None,
            aged: Vec::new(),
        };
        for job in &persisted.jobs {
            let spec = &job.new.submission.spec;
            sweeper.add_job(spec).await;
            for state in &job.checkpoints {
                sweeper.references.add_checkpoint(spec.id(), state);
            }
            let state = &job.progress.state;
            // What this frees is deleted once it is old.
            sweeper.references.set_state(spec.id(), state);
        }
        sweeper
    }

    async fn add_job(&mut self, spec: &JobSpec) {
        let job = spec.id();
        if self.references.knows(&job) {
            return;
        }
        let inputs = match inputs(&self.blobs, spec).await {
            Ok(inputs) => Some(inputs),
            Err(error) => {
                tracing::warn!(
                    job = %job.0.short(), %error,
                    "a manifest cannot be read: no blobs are deleted while its job is not over"
                );
                None
            }
        };
        match inputs {
            Some(_) => drop(self.unread.remove(&job)),
            None => drop(self.unread.insert(job, spec.clone())),
        }
        let address = Digest::of_value(Domain::Blob, spec);
        let manifests = vec![address, spec.model, spec.data, spec.initial_state];
        let blobs = JobBlobs { manifests, inputs };
        self.references.add_job(job, blobs);
    }

    /// Follows changes that have been persisted. Returns once what they free is deleted: until then
    /// no worker is told to store what may be the same blobs again.
    pub(super) async fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Job { submission, .. } = change {
                self.add_job(&submission.spec).await;
            }
        }
        let free = self.references.follow(changes);
        if self.references.unknown().is_empty() {
            self.remove(free, None).await;
        }
    }

    /// Now and then looks through the store for old blobs, and deletes some of those found.
    pub(super) async fn tick(&mut self) {
        if self.references.is_empty() {
            return;
        }
        if let Some(looking) = self.looking.take_if(|looking| looking.is_finished()) {
            match looking.await {
                Ok(Ok(aged)) => self.aged = aged,
                Ok(Err(error)) => tracing::warn!(%error, "old blobs cannot be found"),
                Err(error) => tracing::warn!(%error, "old blobs cannot be found"),
            }
        }
        if !self.references.unknown().is_empty() {
            // Old blobs are looked for again once it is known what all jobs need.
            self.aged.clear();
            if self.read.elapsed() >= EVERY {
                self.read = Instant::now();
                self.read_again().await;
            }
            return;
        }
        let is_due = self.swept.is_none_or(|swept| swept.elapsed() >= EVERY);
        if is_due && self.looking.is_none() && self.aged.is_empty() {
            let blobs = self.blobs.clone();
            self.swept = Some(Instant::now());
            self.looking = Some(tokio::task::spawn_blocking(move || blobs.aged(SPARED)));
        }
        let left = self.aged.len().saturating_sub(AT_ONCE);
        let mut free = self.aged.split_off(left);
        free.retain(|blob| !self.references.holds(blob));
        self.remove(free, Some(SPARED)).await;
    }

    /// Reads the manifests of jobs again whose needs are unknown.
    async fn read_again(&mut self) {
        for job in self.references.unknown() {
            if let Some(spec) = self.unread.get(&job).cloned() {
                self.add_job(&spec).await;
            }
        }
    }

    /// Deletes blobs on a thread for files; if `age` is given, only those that are at least that
    /// old.
    async fn remove(&self, free: Vec<Digest>, age: Option<Duration>) {
        if free.is_empty() {
            return;
        }
        let blobs = self.blobs.clone();
        let removal = move || {
            for blob in free {
                let removed = match age {
                    Some(age) => blobs.remove_aged(&blob, age),
                    None => blobs.remove(&blob),
                };
                if let Err(error) = removed {
                    // It takes room, and does no other harm.
                    tracing::warn!(%error, "a blob that nothing needs cannot be deleted");
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(removal).await {
            tracing::warn!(%error, "blobs that nothing needs are not deleted");
        }
    }
}

/// What the manifests of a job name.
async fn inputs(blobs: &BlobStore, spec: &JobSpec) -> Result<Vec<Digest>, BlobError> {
    let model: ModelManifest = blobs.manifest(&spec.model).await?;
    let data: DataManifest = blobs.manifest(&spec.data).await?;
    let initial: StateManifest = blobs.manifest(&spec.initial_state).await?;
    let states = initial.entries.iter();
    let states = states.flat_map(|e| [e.value, e.first_moment, e.second_moment]);
    let tensors = model.tensors.iter().map(|tensor| tensor.blob);
    Ok(tensors.chain(data.chunks).chain(states).collect())
}
