//! Changes, all or none.

use concord_proto::{JobId, canonical};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::{Result, Store, StoreError};
use crate::core::Change;

impl Store {
    /// Keeps all changes in one transaction. Once this returns, they survive a crash of the
    /// machine.
    ///
    /// # Errors
    /// [`StoreError`]; none of the changes is stored then.
    pub async fn persist(&self, changes: &[Change]) -> Result<()> {
        let mut connection = self.connection.lock().await;
        let failed = |why| StoreError::of(&self.path, why);
        let mut transaction = connection.begin().await.map_err(failed)?;
        for change in changes {
            write(&mut transaction, change).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }
}

async fn write(connection: &mut SqliteConnection, change: &Change) -> sqlx::Result<()> {
    match change {
        Change::Job {
            job,
            number,
            submission,
            submitters,
        } => {
            let sql = "INSERT INTO jobs (job, number, submission, progress, submitters) \
                       VALUES ($1, $2, $3, $4, $5) ON CONFLICT (job) DO UPDATE \
                       SET number = excluded.number, submission = excluded.submission, \
                       submitters = excluded.submitters";
            let query = sqlx::query(sql).bind(key(job)).bind(i64::from(*number));
            let query = query
                .bind(canonical::encode(&**submission))
                .bind(Vec::new())
                .bind(canonical::encode(submitters));
            query.execute(connection).await.map(drop)
        }
        Change::Progress { job, progress } => {
            let sql = "UPDATE jobs SET progress = $2 WHERE job = $1";
            let query = sqlx::query(sql).bind(key(job));
            let query = query.bind(canonical::encode(progress));
            query.execute(connection).await.map(drop)
        }
        Change::Step {
            attempt,
            record,
            claims,
        } => {
            let at = (&record.job, i64::from(record.step));
            put(connection, RECORDS, at, canonical::encode(record)).await?;
            let query = sqlx::query(CLAIMS).bind(key(&record.job));
            let query = query.bind(at.1).bind(canonical::encode(claims));
            let query = query.bind(i64::from(*attempt));
            query.execute(connection).await.map(drop)
        }
        Change::Void { job, from_step } => {
            let query = sqlx::query(VOID).bind(key(job));
            query
                .bind(i64::from(*from_step))
                .execute(connection)
                .await
                .map(drop)
        }
        Change::Ledger { job, number, entry } => {
            let at = (job, *number as i64);
            put(connection, LEDGER, at, canonical::encode(entry)).await
        }
        Change::Plan { plan } => {
            let at = (&plan.job, i64::from(plan.epoch));
            put(connection, PLANS, at, canonical::encode(plan)).await
        }
        Change::Checkpoint { job, state } => {
            let at = (job, i64::from(state.step));
            put(connection, CHECKPOINTS, at, canonical::encode(state)).await
        }
        Change::AuditOpened { job, audit } => {
            let at = (job, audit.number as i64);
            put(connection, AUDITS, at, canonical::encode(audit)).await
        }
        Change::AuditContradicted { job, audit } => {
            let at = (job, audit.number as i64);
            put(connection, AUDITS_AGAIN, at, canonical::encode(audit)).await
        }
        Change::Event { job, number, event } => {
            let at = (job, *number as i64);
            put(connection, EVENTS, at, canonical::encode(event)).await
        }
        Change::Truncate { job, from_step } => {
            let at = (job, i64::from(*from_step));
            remove(
                connection,
                "DELETE FROM records WHERE job = $1 AND step >= $2",
                at,
            )
            .await?;
            remove(
                connection,
                "DELETE FROM claims WHERE job = $1 AND step >= $2",
                at,
            )
            .await
        }
        Change::DropCheckpoints { job, steps } => {
            let sql = "DELETE FROM checkpoints WHERE job = $1 AND step = $2";
            for step in steps {
                remove(connection, sql, (job, i64::from(*step))).await?;
            }
            Ok(())
        }
        Change::AuditClosed { job, number } => {
            let sql = "DELETE FROM audits WHERE job = $1 AND number = $2";
            remove(connection, sql, (job, *number as i64)).await
        }
        Change::Member(member) => {
            let sql = "INSERT INTO members (id, member) VALUES ($1, $2) \
                       ON CONFLICT (id) DO UPDATE SET member = excluded.member";
            let query = sqlx::query(sql).bind(member.id.0.to_vec());
            let query = query.bind(canonical::encode(member));
            query.execute(connection).await.map(drop)
        }
        Change::Convicted { culprit, offence } => {
            let sql = "INSERT INTO convicted (id, offence) VALUES ($1, $2) \
                       ON CONFLICT (id) DO NOTHING";
            let query = sqlx::query(sql).bind(culprit.0.to_vec());
            let query = query.bind(canonical::encode(offence));
            query.execute(connection).await.map(drop)
        }
    }
}

const RECORDS: &str = "INSERT INTO records (job, step, record) VALUES ($1, $2, $3) \
                       ON CONFLICT (job, step) DO UPDATE SET record = excluded.record";
const CLAIMS: &str = "INSERT INTO claims (job, step, claims, attempt) VALUES ($1, $2, $3, $4) \
                      ON CONFLICT (job, step) DO UPDATE \
                      SET claims = excluded.claims, attempt = excluded.attempt";
// What was void before stays as it is.
const VOID: &str = "INSERT OR IGNORE INTO voided (job, attempt, claims) \
                    SELECT job, attempt, claims FROM claims WHERE job = $1 AND step >= $2";
const LEDGER: &str = "INSERT INTO ledger (job, number, entry) VALUES ($1, $2, $3)";
const PLANS: &str = "INSERT INTO plans (job, epoch, plan) VALUES ($1, $2, $3)";
const CHECKPOINTS: &str = "INSERT INTO checkpoints (job, step, state) VALUES ($1, $2, $3) \
                           ON CONFLICT (job, step) DO UPDATE SET state = excluded.state";
const AUDITS: &str = "INSERT INTO audits (job, number, audit) VALUES ($1, $2, $3)";
const AUDITS_AGAIN: &str = "INSERT INTO audits (job, number, audit) VALUES ($1, $2, $3) \
                            ON CONFLICT (job, number) DO UPDATE SET audit = excluded.audit";
const EVENTS: &str = "INSERT INTO events (job, number, event) VALUES ($1, $2, $3)";

/// A number of a job: a step, an epoch, or a place in a list.
type At<'a> = (&'a JobId, i64);

async fn put(
    connection: &mut SqliteConnection,
    sql: &'static str,
    (job, number): At<'_>,
    value: Vec<u8>,
) -> sqlx::Result<()> {
    let query = sqlx::query(sql).bind(key(job)).bind(number).bind(value);
    query.execute(connection).await.map(drop)
}

async fn remove(
    connection: &mut SqliteConnection,
    sql: &'static str,
    (job, number): At<'_>,
) -> sqlx::Result<()> {
    let query = sqlx::query(sql).bind(key(job)).bind(number);
    query.execute(connection).await.map(drop)
}

fn key(job: &JobId) -> Vec<u8> {
    job.0.0.to_vec()
}
