//! What is found after a restart.

use concord_proto::client::{JobEvent, JobState, Submission};
use concord_proto::manifest::{DataManifest, StateManifest};
use concord_proto::{JobId, PublicKey};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Result, Store, StoreError, read};
use crate::blobs::BlobStore;
use crate::core::{JobProgress, NewJob, Persisted, PersistedAudit, PersistedJob, PersistedLedger};

impl Store {
    /// Everything that the core goes on from. The manifests that jobs name are read from `blobs`.
    ///
    /// # Errors
    /// [`StoreError`] naming what is damaged or missing.
    pub async fn load(&self, blobs: &BlobStore) -> Result<Persisted> {
        let members = self.all("SELECT member FROM members ORDER BY id").await?;
        let members: Result<Vec<_>> = members.iter().map(|m| read("a member", m)).collect();
        let convicted = self.rows("SELECT id, offence FROM convicted ORDER BY id", None);
        let convicted: Result<Vec<_>> = convicted
            .await?
            .iter()
            .map(|row| {
                let id = read("a convicted key", &row.get::<Vec<u8>, _>(0))?;
                Ok((id, read("an offence", &row.get::<Vec<u8>, _>(1))?))
            })
            .collect();
        let sql = "SELECT number, submission, progress, submitters FROM jobs ORDER BY number";
        let mut jobs = Vec::new();
        for row in self.rows(sql, None).await? {
            let number = row.get::<i64, _>(0) as u32;
            let submission = read("a job", &row.get::<Vec<u8>, _>(1))?;
            let progress = read("where a job stands", &row.get::<Vec<u8>, _>(2))?;
            let submitters = read("who submitted a job", &row.get::<Vec<u8>, _>(3))?;
            let submitted = (submission, submitters);
            jobs.push(self.load_job(blobs, number, submitted, progress).await?);
        }
        Ok(Persisted {
            members: members?,
            convicted: convicted?,
            jobs,
        })
    }

    async fn load_job(
        &self,
        blobs: &BlobStore,
        number: u32,
        (submission, submitters): (Submission, Vec<PublicKey>),
        progress: JobProgress,
    ) -> Result<PersistedJob> {
        let spec = &submission.spec;
        let job = spec.id();
        let data = manifest(blobs, &spec.data, "a data manifest").await;
        let initial = manifest(blobs, &spec.initial_state, "an initial state").await;
        let (data, initial) = match (data, initial) {
            (Ok(data), Ok(initial)) => (data, initial),
            // Nothing more is done for it. Who submits it again brings them along.
            (Err(why), _) | (_, Err(why)) if is_over(&progress.state) => {
                let job = job.0.short();
                tracing::warn!("job {job} is over and has no proof any more: {why}");
                (no_data(), no_state())
            }
            (Err(why), _) | (_, Err(why)) => return Err(why),
        };
        let checkpoints: Vec<StateManifest> = self
            .values(
                "SELECT state FROM checkpoints WHERE job = $1 ORDER BY step",
                job,
                0,
            )
            .await?;
        // All records: their losses decide whether the job goes on.
        let records = "SELECT record FROM records WHERE job = $1 ORDER BY step";
        let claims = "SELECT claims FROM claims WHERE job = $1 AND step >= $2 ORDER BY step";
        let audits = "SELECT audit FROM audits WHERE job = $1 ORDER BY number";
        let audits: Vec<PersistedAudit> = self.values(audits, job, 0).await?;
        let events = self.events(job, 0).await?.len() as u64;
        let mut ledger = PersistedLedger::default();
        let entries = "SELECT entry FROM ledger WHERE job = $1 ORDER BY number";
        for entry in self.values(entries, job, 0).await? {
            ledger
                .read(&entry)
                .map_err(|why| StoreError::damaged("the ledger", why))?;
        }
        // A leaf that is found wrong is shown with the claim that it is in, and secrets draw from
        // claims.
        let open = audits.iter().map(|audit| audit.step);
        let open = open.chain(ledger.first_unopened()).min();
        let last_two = progress.committed.saturating_sub(2);
        let oldest = open.map_or(last_two, |open| open.min(last_two));
        Ok(PersistedJob {
            number,
            records: self.values(records, job, 0).await?,
            claims: self.values(claims, job, oldest.into()).await?,
            checkpoints,
            ledger,
            events,
            audits,
            new: NewJob {
                submission,
                submitters,
                data,
                initial,
            },
            progress,
        })
    }

    /// The events of a job from number `from` on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn events(&self, job: JobId, from: u64) -> Result<Vec<JobEvent>> {
        let sql = "SELECT event FROM events WHERE job = $1 AND number >= $2 ORDER BY number";
        self.values(sql, job, from).await
    }

    /// The values of one column of the rows of a job, from a number on where the query has one.
    pub(super) async fn values<T: borsh::BorshDeserialize>(
        &self,
        sql: &'static str,
        job: JobId,
        from: u64,
    ) -> Result<Vec<T>> {
        let rows = self.rows(sql, Some((job, from))).await?;
        let value = |row: &SqliteRow| read("a row", &row.get::<Vec<u8>, _>(0));
        rows.iter().map(value).collect()
    }

    async fn all(&self, sql: &'static str) -> Result<Vec<Vec<u8>>> {
        let rows = self.rows(sql, None).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    pub(super) async fn rows(
        &self,
        sql: &'static str,
        of: Option<(JobId, u64)>,
    ) -> Result<Vec<SqliteRow>> {
        let mut connection = self.connection.lock().await;
        let mut query = sqlx::query(sql);
        if let Some((job, from)) = of {
            query = query.bind(job.0.0.to_vec());
            if sql.contains("$2") {
                query = query.bind(from as i64);
            }
        }
        let rows = query.fetch_all(&mut *connection).await;
        rows.map_err(|why| StoreError::of(&self.path, why))
    }
}

fn is_over(state: &JobState) -> bool {
    match state {
        JobState::Waiting(_) | JobState::Running | JobState::Auditing => false,
        JobState::Completed { .. } | JobState::Failed(_) | JobState::Cancelled => true,
    }
}

/// A data set without sequences.
fn no_data() -> DataManifest {
    DataManifest {
        sequence_len: 0,
        chunk_sequences: 0,
        chunks: Vec::new(),
        sequences: Vec::new(),
    }
}

/// A state without tensors.
fn no_state() -> StateManifest {
    StateManifest {
        step: 0,
        entries: Vec::new(),
    }
}

async fn manifest<T: borsh::BorshSerialize + borsh::BorshDeserialize>(
    blobs: &BlobStore,
    address: &concord_proto::Digest,
    what: &str,
) -> Result<T> {
    let manifest = blobs.manifest(address).await;
    manifest.map_err(|why| StoreError::damaged(what, why))
}
