//! Receipts of answers: the newest of them.

use borsh::BorshDeserialize;
use concord_proto::serving::BatchedReceipt;
use sqlx::{Connection, Row};

use super::{Result, Store, StoreError};

/// Receipts that are stored.
const RECEIPTS_MAX: i64 = 100_000;

/// Receipts that one question gives at most: a request has at most so many choices.
const FOUND_MAX: i64 = 256;

impl Store {
    /// Keeps receipts by their names, and deletes the oldest.
    ///
    /// # Errors
    /// [`StoreError`]; none of them is stored then.
    pub async fn keep_receipts(&self, receipts: &[(&str, Vec<u8>)]) -> Result<()> {
        if receipts.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection.lock().await;
        let failed = |why| StoreError::of(&self.path, why);
        let mut transaction = connection.begin().await.map_err(failed)?;
        let last = sqlx::query("SELECT COALESCE(MAX(number), 0) FROM receipts")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let mut number: i64 = last.get(0);
        for (id, receipt) in receipts {
            number += 1;
            sqlx::query("INSERT INTO receipts (number, id, receipt) VALUES ($1, $2, $3)")
                .bind(number)
                .bind(*id)
                .bind(receipt.as_slice())
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        sqlx::query("DELETE FROM receipts WHERE number <= $1")
            .bind(number - RECEIPTS_MAX)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// The receipts named `id`, or `id` and the index of a choice after a "-", by that index.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts(&self, id: &str) -> Result<Vec<BatchedReceipt>> {
        let mut connection = self.connection.lock().await;
        // All names that begin with the id and "-" come before those with the next character, ".".
        let sql = "SELECT id, receipt FROM receipts \
                   WHERE id = $1 OR (id >= $2 AND id < $3) ORDER BY number LIMIT $4";
        let rows = sqlx::query(sql)
            .bind(id)
            .bind(format!("{id}-"))
            .bind(format!("{id}."))
            .bind(FOUND_MAX)
            .fetch_all(&mut *connection)
            .await
            .map_err(|why| StoreError::of(&self.path, why))?;
        let mut found = Vec::new();
        for row in rows {
            let name: String = row.get(0);
            let Some(choice) = choice(&name[id.len()..]) else {
                // A longer name: its beginning gives no access to its receipt.
                continue;
            };
            found.push((choice, decode(&row.get::<Vec<u8>, _>(1))?));
        }
        found.sort_by_key(|(choice, _)| *choice);
        Ok(found.into_iter().map(|(_, receipt)| receipt).collect())
    }
}

/// Reads a receipt that this process, or one before it, has written.
fn decode(bytes: &[u8]) -> Result<BatchedReceipt> {
    BatchedReceipt::try_from_slice(bytes).map_err(|why| {
        let earlier = "one of an earlier release is read by that release";
        StoreError::damaged("a receipt", format!("{why}; {earlier}"))
    })
}

/// The index of a choice from what follows the id of a request: nothing, or "-" and digits.
fn choice(rest: &str) -> Option<u32> {
    if rest.is_empty() {
        return Some(0);
    }
    let digits = rest.strip_prefix('-')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}
