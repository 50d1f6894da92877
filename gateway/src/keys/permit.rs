//! A running request, as its key's account counts it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use concord_proto::serving::Usage;

use super::account::{KeyAccount, Wanted};
use super::now;
use crate::api_error::ApiError;

/// Records what a request asks for and uses. It lasts as long as the permit.
pub(crate) trait RequestRecord: Send + Sync {
    /// Records the model or the adapter that the request names.
    fn asks(&self, model: &str);

    /// Records what the answers used.
    fn used(&self, usage: &Usage);
}

/// A running request. Dropping it ends the request, and releases what it has set aside.
pub(crate) struct Permit {
    account: Arc<KeyAccount>,
    record: Option<Arc<dyn RequestRecord>>,
    reserved: Mutex<u64>,
}

impl KeyAccount {
    /// Admits a request at `now`, the time since 1970.
    ///
    /// # Errors
    /// A 429 that says when to ask again.
    pub fn admit(self: &Arc<Self>, now: Duration) -> Result<Permit, ApiError> {
        self.enter(now)?;
        Ok(Permit {
            account: self.clone(),
            record: None,
            reserved: Mutex::default(),
        })
    }
}

impl Permit {
    /// Sets where this request is recorded.
    pub fn noted_in(mut self, record: Arc<dyn RequestRecord>) -> Self {
        self.record = Some(record);
        self
    }

    /// Records the model or the adapter that the request names.
    pub fn asks(&self, model: &str) {
        if let Some(record) = &self.record {
            record.asks(model);
        }
    }

    /// The account of the request's key.
    pub fn account(&self) -> &Arc<KeyAccount> {
        &self.account
    }

    /// As [`KeyAccount::reserve`]. Returns how many tokens each answer may have.
    ///
    /// # Errors
    /// A 429.
    pub fn reserve(&self, wanted: Wanted) -> Result<u32, ApiError> {
        let (answer, reserved) = self.account.reserve(wanted, now())?;
        *self.reserved() += reserved;
        Ok(answer)
    }

    /// Records what the request used, and releases what it has set aside.
    pub fn settle(&self, usage: &Usage) {
        let reserved = std::mem::take(&mut *self.reserved());
        self.account.state.settle(reserved, usage, now());
        if let Some(record) = &self.record {
            record.used(usage);
        }
    }

    fn reserved(&self) -> MutexGuard<'_, u64> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let reserved = std::mem::take(&mut *self.reserved());
        let state = &self.account.state;
        state.settle(reserved, &Usage::default(), now());
        state.leave();
    }
}
