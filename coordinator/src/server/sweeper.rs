//! Deletes blobs that no job needs any more: the states of old checkpoints at once, all others when
//! they have been there for a while.
//!
//! What is kept is written first. A crash between the two leaves blobs that nothing names, and these
//! go with age.

use std::sync::Arc;
use std::time::{Duration, Instant};

use concord_proto::manifest::{DataManifest, ModelManifest, StateManifest};
use concord_proto::{Digest, Domain, JobSpec};
use tokio::task::JoinHandle;

use crate::blobs::{BlobError, Blobs, JobBlobs, References, SPARED};
use crate::core::{Change, Kept};

/// How often the whole store is looked through.
const EVERY: Duration = Duration::from_secs(600);

/// Old blobs that are looked at in one tick.
const AT_ONCE: usize = 256;

/// What is known of the store.
pub(super) struct Sweeper {
    blobs: Arc<Blobs>,
    references: References,
    /// Not where it is unknown what some job needs: then nothing is deleted.
    is_sure: bool,
    swept: Option<Instant>,
    /// The task that looks for old blobs.
    looking: Option<JoinHandle<Result<Vec<Digest>, BlobError>>>,
    /// What it found, and has not been looked at.
    aged: Vec<Digest>,
}

impl Sweeper {
    /// Learns what the jobs that are kept need.
    pub(super) async fn new(kept: &Kept, blobs: Arc<Blobs>) -> Self {
        let mut sweeper = Self {
            blobs,
            references: References::default(),
            is_sure: true,
            swept: None,
            looking: None,
            aged: Vec::new(),
        };
        for kept in &kept.jobs {
            let spec = &kept.new.submission.spec;
            sweeper.add_job(spec).await;
            for state in &kept.checkpoints {
                sweeper.references.add_checkpoint(spec.id(), state);
            }
            let state = &kept.progress.state;
            // What is free goes with age.
            sweeper.references.set_state(spec.id(), state);
        }
        sweeper
    }

    async fn add_job(&mut self, spec: &JobSpec) {
        match inputs(&self.blobs, spec).await {
            Ok(inputs) => {
                let address = Digest::of_value(Domain::Blob, spec);
                let manifests = vec![address, spec.model, spec.data, spec.initial_state];
                let blobs = JobBlobs { manifests, inputs };
                self.references.add_job(spec.id(), blobs);
            }
            Err(error) => {
                tracing::warn!(job = %spec.id().0.short(), %error, "no blobs are deleted any more");
                self.is_sure = false;
            }
        }
    }

    /// Follows changes that have been kept.
    pub(super) async fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Job { submission, .. } = change {
                self.add_job(&submission.spec).await;
            }
        }
        for blob in self.references.follow(changes) {
            if self.is_sure {
                self.told(self.blobs.remove(&blob));
            }
        }
    }

    /// Now and then looks through the store for old blobs, and deletes some of those found.
    pub(super) async fn tick(&mut self) {
        if self.references.is_empty() || !self.is_sure {
            return;
        }
        if let Some(looking) = self.looking.take_if(|looking| looking.is_finished()) {
            match looking.await {
                Ok(Ok(aged)) => self.aged = aged,
                Ok(Err(error)) => tracing::warn!(%error, "old blobs cannot be found"),
                Err(error) => tracing::warn!(%error, "old blobs cannot be found"),
            }
        }
        let left = self.aged.len().saturating_sub(AT_ONCE);
        for blob in self.aged.split_off(left) {
            if !self.references.holds(&blob) {
                self.told(self.blobs.remove_aged(&blob, SPARED));
            }
        }
        let is_due = self.swept.is_none_or(|swept| swept.elapsed() >= EVERY);
        if is_due && self.looking.is_none() && self.aged.is_empty() {
            let blobs = self.blobs.clone();
            self.swept = Some(Instant::now());
            self.looking = Some(tokio::task::spawn_blocking(move || blobs.aged(SPARED)));
        }
    }

    fn told(&self, removed: Result<bool, BlobError>) {
        if let Err(error) = removed {
            // It takes room, and nothing else.
            tracing::warn!(%error, "a blob that nothing needs cannot be deleted");
        }
    }
}

/// What the manifests of a job name.
async fn inputs(blobs: &Blobs, spec: &JobSpec) -> Result<Vec<Digest>, BlobError> {
    let model: ModelManifest = blobs.manifest(&spec.model).await?;
    let data: DataManifest = blobs.manifest(&spec.data).await?;
    let initial: StateManifest = blobs.manifest(&spec.initial_state).await?;
    let states = initial.entries.iter();
    let states = states.flat_map(|e| [e.value, e.first_moment, e.second_moment]);
    let tensors = model.tensors.iter().map(|tensor| tensor.blob);
    Ok(tensors.chain(data.chunks).chain(states).collect())
}
