//! A request under way, in the account of its key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concord_proto::serving::Usage;

use super::account::{Account, Wanted};
use super::now;
use crate::api_error::ApiError;
use crate::visit::Visit;

/// A request under way. Dropping it ends the request, and gives back what it has set aside.
pub(crate) struct Permit {
    account: Arc<Account>,
    visit: Option<Arc<Visit>>,
    reserved: Mutex<u64>,
}

impl Permit {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self {
            account,
            visit: None,
            reserved: Mutex::default(),
        }
    }

    /// The visit whose figures this request tells.
    pub fn of(mut self, visit: Option<Arc<Visit>>) -> Self {
        self.visit = visit;
        self
    }

    /// The model, or the adapter, that the request asks.
    pub fn asks(&self, model: &str) {
        if let Some(visit) = &self.visit {
            visit.asks(model);
        }
    }

    /// Whose request it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// See [`Account::reserve`]; gives how many tokens each answer may have.
    ///
    /// # Errors
    /// A 429.
    pub fn reserve(&self, wanted: Wanted) -> Result<u32, ApiError> {
        let (answer, reserved) = self.account.reserve(wanted, now())?;
        *self.reserved() += reserved;
        Ok(answer)
    }

    /// Notes what the request took.
    pub fn settle(&self, usage: &Usage) {
        let reserved = std::mem::take(&mut *self.reserved());
        self.account.state.settle(reserved, usage, now());
        if let Some(visit) = &self.visit {
            visit.used(usage);
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
