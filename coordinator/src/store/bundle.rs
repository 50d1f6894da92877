//! The proof of a job, put together from what is stored.

use concord_proto::client::{JobState, Submission};
use concord_proto::{JobId, JobSpec};
use concord_verify::training::bundle::{Bundle, StepClaims, VoidClaims};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Result, Store, StoreError, read};
use crate::blobs::BlobStore;
use crate::core::JobProgress;

impl Store {
    /// The proof of a job that is done; `Err` in the inner result says why there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bundle(
        &self,
        blobs: &BlobStore,
        job: JobId,
    ) -> Result<std::result::Result<Bundle, String>> {
        let Some((spec, progress)) = self.job(job).await? else {
            return Ok(Err(format!("there is no job {job} here")));
        };
        if !matches!(progress.state, JobState::Completed { .. }) {
            let steps = spec.steps;
            let done = spec.updates_before(progress.committed);
            return Ok(Err(format!(
                "the job is not done: {done} of {steps} steps are committed"
            )));
        }
        let damaged = |why| StoreError::damaged("a manifest", why);
        let data = blobs.manifest(&spec.data).await.map_err(damaged)?;
        let initial_state = blobs.manifest(&spec.initial_state).await.map_err(damaged)?;
        let records = "SELECT record FROM records WHERE job = $1 ORDER BY step";
        let claims = "SELECT claims FROM claims WHERE job = $1 ORDER BY step";
        let ledger = "SELECT entry FROM ledger WHERE job = $1 ORDER BY number";
        Ok(Ok(Bundle {
            spec,
            data,
            initial_state,
            records: self.values(records, job, 0).await?,
            claims: self.values(claims, job, 0).await?,
            voided: self.voided(job).await?,
            ledger: self.values(ledger, job, 0).await?,
        }))
    }

    /// The claims of void attempts.
    async fn voided(&self, job: JobId) -> Result<Vec<VoidClaims>> {
        let sql = "SELECT claims, attempt FROM voided WHERE job = $1 AND attempt >= $2 \
                   ORDER BY attempt";
        let rows = self.rows(sql, Some((job, 0))).await?;
        let void = |row: &SqliteRow| {
            let step: StepClaims = read("claims", &row.get::<Vec<u8>, _>(0))?;
            Ok(VoidClaims {
                attempt: row.get::<i64, _>(1) as u32,
                claims: step.claims,
            })
        };
        rows.iter().map(void).collect()
    }

    async fn job(&self, job: JobId) -> Result<Option<(JobSpec, JobProgress)>> {
        let mut connection = self.connection.lock().await;
        let sql = "SELECT submission, progress FROM jobs WHERE job = $1";
        let row = sqlx::query(sql)
            .bind(job.0.0.to_vec())
            .fetch_optional(&mut *connection)
            .await
            .map_err(|why| StoreError::of(&self.path, why))?;
        let Some(row) = row else {
            return Ok(None);
        };
        let submission: Submission = read("a job", &row.get::<Vec<u8>, _>(0))?;
        let progress = read("where a job stands", &row.get::<Vec<u8>, _>(1))?;
        Ok(Some((submission.spec, progress)))
    }
}
