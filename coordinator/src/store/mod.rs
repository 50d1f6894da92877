//! What outlives the process: one SQLite file, changed in transactions.
//!
//! The queries are those that PostgreSQL takes too. Values are canonical encodings; what a query
//! selects by is a column of its own.

mod bundle;
mod error;
mod load;
mod receipts;
mod write;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use borsh::BorshDeserialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::Mutex;

pub use error::StoreError;

/// For each version, the SQL that makes it of the version before; the first is made of an empty
/// store.
const STEPS: [(&str, &str); 5] = [
    (include_str!("schema.sql"), "PRAGMA user_version = 1"),
    (include_str!("receipts.sql"), "PRAGMA user_version = 2"),
    (include_str!("submitters.sql"), "PRAGMA user_version = 3"),
    (include_str!("attempts.sql"), "PRAGMA user_version = 4"),
    (include_str!("voided.sql"), "PRAGMA user_version = 5"),
];

/// Stores before this version have ledgers with draws of the coordinator: with jobs in them they
/// are not read.
const DRAWS_IN_SECRET: i64 = 5;

/// The secrets of a coordinator.
#[derive(Clone, Copy)]
pub struct Secrets {
    /// Secret half of its key.
    pub key: [u8; 32],
    /// What its draws are derived from.
    pub nonce: [u8; 32],
}

/// The store of one coordinator.
pub struct Store {
    path: PathBuf,
    /// One connection: all that is written comes from one task, and readers are rare.
    connection: Mutex<SqliteConnection>,
    /// Held while the store is open.
    _lock: File,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens the store in `folder`, or makes one.
    ///
    /// # Errors
    /// [`StoreError`] where another coordinator has it, another release wrote it, or it cannot be
    /// read.
    pub async fn open(folder: &Path) -> Result<Self> {
        let refuse = |why| StoreError::Folder {
            path: folder.to_path_buf(),
            why,
        };
        std::fs::create_dir_all(folder).map_err(refuse)?;
        let lock = File::create(folder.join("coordinator.lock")).map_err(refuse)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked(folder.to_path_buf()));
            }
            Err(TryLockError::Error(why)) => return Err(refuse(why)),
        }
        let path = folder.join("coordinator.db");
        let connection = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .connect()
            .await
            .map_err(|why| StoreError::of(&path, why))?;
        let store = Self {
            path,
            connection: Mutex::new(connection),
            _lock: lock,
        };
        store.migrate().await?;
        Ok(store)
    }

    /// Closes the database: everything is then in the one file, and no journal is left beside it.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn close(self) -> Result<()> {
        let closed = self.connection.into_inner().close().await;
        closed.map_err(|why| StoreError::of(&self.path, why))
    }

    fn of_other_release(&self, found: i64) -> StoreError {
        StoreError::Schema {
            path: self.path.clone(),
            found: u32::try_from(found).unwrap_or(u32::MAX),
            ours: STEPS.len() as u32,
        }
    }

    async fn migrate(&self) -> Result<()> {
        let mut connection = self.connection.lock().await;
        let failed = |why| StoreError::of(&self.path, why);
        let found: i64 = sqlx::query("PRAGMA user_version")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?
            .get(0);
        let done = usize::try_from(found).ok();
        let Some(missing) = done.and_then(|done| STEPS.get(done..)) else {
            return Err(self.of_other_release(found));
        };
        if (1..DRAWS_IN_SECRET).contains(&found) {
            let jobs: i64 = sqlx::query("SELECT count(*) FROM jobs")
                .fetch_one(&mut *connection)
                .await
                .map_err(failed)?
                .get(0);
            if jobs > 0 {
                return Err(self.of_other_release(found));
            }
        }
        for (step, version) in missing {
            let mut transaction = connection.begin().await.map_err(failed)?;
            for sql in [step, version] {
                let done = sqlx::raw_sql(*sql).execute(&mut *transaction).await;
                done.map_err(failed)?;
            }
            transaction.commit().await.map_err(failed)?;
        }
        Ok(())
    }

    /// The secrets of this coordinator: those in the store, or else `fresh`, which are stored now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn secrets(&self, fresh: Secrets) -> Result<Secrets> {
        let mut connection = self.connection.lock().await;
        let failed = |why| StoreError::of(&self.path, why);
        let insert = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        for (name, value) in [("key", fresh.key), ("nonce", fresh.nonce)] {
            sqlx::query(insert)
                .bind(name)
                .bind(value.to_vec())
                .execute(&mut *connection)
                .await
                .map_err(failed)?;
        }
        let mut secrets = [[0; 32]; 2];
        for (name, secret) in ["key", "nonce"].into_iter().zip(&mut secrets) {
            let value: Vec<u8> = sqlx::query("SELECT value FROM meta WHERE name = $1")
                .bind(name)
                .fetch_one(&mut *connection)
                .await
                .map_err(failed)?
                .get(0);
            let value = value.try_into();
            *secret = value.map_err(|_| StoreError::damaged(name, "it is not 32 bytes"))?;
        }
        let [key, nonce] = secrets;
        Ok(Secrets { key, nonce })
    }
}

/// Reads a value that this process, or one before it, has written.
fn read<T: BorshDeserialize>(what: &str, bytes: &[u8]) -> Result<T> {
    T::try_from_slice(bytes).map_err(|why| StoreError::damaged(what, why))
}
