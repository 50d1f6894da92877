//! What one key may take, and has taken.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use concord_proto::Digest;

use super::file::KeyLine;
use crate::api_error::ApiError;
use crate::options::Limits;

const DAY_SECONDS: u64 = 86_400;

const SECOND_NANOS: u128 = 1_000_000_000;

/// What a request takes of its key's allowance: the nanoseconds of a minute.
const REQUEST: u128 = 60 * SECOND_NANOS;

/// A key's owner. What was taken is kept in memory: a new start forgets it.
pub(crate) struct Account {
    pub line: KeyLine,
    requests_per_minute: u32,
    concurrent: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// What may come now, once `at` is set: a request takes [`REQUEST`] of it, and a nanosecond
    /// brings as much as there are requests a minute.
    allowance: u128,
    at: Option<Duration>,
    running: u32,
    /// Days since 1970, and the tokens of that day.
    day: u64,
    tokens: u64,
}

/// A request under way. Dropping it ends the request.
pub(crate) struct Permit(Arc<Account>);

impl Account {
    pub fn new(line: KeyLine, limits: &Limits) -> Self {
        let per_minute = line.requests_per_minute;
        Self {
            requests_per_minute: per_minute.unwrap_or(limits.requests_per_minute),
            concurrent: line.concurrent.unwrap_or(limits.concurrent),
            line,
            taken: Mutex::default(),
        }
    }

    /// For fair queueing.
    pub fn owner(&self) -> Digest {
        self.line.digest
    }

    /// Whether it may change what is served.
    ///
    /// # Errors
    /// A 403.
    pub fn check_admin(&self) -> Result<(), ApiError> {
        if self.line.admin {
            return Ok(());
        }
        let message = "This needs an API key that has 'admin' on its line.";
        let error = ApiError::new(StatusCode::FORBIDDEN, "invalid_request_error", message);
        Err(error.code("insufficient_permissions"))
    }

    /// Lets a request in at `now`, time since 1970.
    ///
    /// # Errors
    /// A 429 that says when to come again.
    pub fn admit(self: &Arc<Self>, now: Duration) -> Result<Permit, ApiError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if self.concurrent > 0 && taken.running >= self.concurrent {
            let message = format!("{} requests of this key run already.", taken.running);
            return Err(too_many(message, 1));
        }
        let day = now.as_secs() / DAY_SECONDS;
        if taken.day != day {
            (taken.day, taken.tokens) = (day, 0);
        }
        if let Some(most) = self
            .line
            .tokens_per_day
            .filter(|most| taken.tokens >= *most)
        {
            let left = DAY_SECONDS - now.as_secs() % DAY_SECONDS;
            let message = format!("This key has used its {most} tokens of today (UTC).");
            return Err(too_many(message, left));
        }
        if self.requests_per_minute > 0 {
            taken.refill(self.requests_per_minute, now);
            if taken.allowance < REQUEST {
                let most = self.requests_per_minute;
                let nanos = (REQUEST - taken.allowance).div_ceil(u128::from(most));
                let seconds = u64::try_from(nanos.div_ceil(SECOND_NANOS)).unwrap_or(u64::MAX);
                let message = format!("This key may send {most} requests a minute.");
                return Err(too_many(message, seconds));
            }
            taken.allowance -= REQUEST;
        }
        taken.running += 1;
        Ok(Permit(self.clone()))
    }
}

impl Taken {
    fn refill(&mut self, per_minute: u32, now: Duration) {
        let most = u128::from(per_minute) * REQUEST;
        let came = match self.at {
            None => most,
            Some(at) => now.saturating_sub(at).as_nanos() * u128::from(per_minute),
        };
        self.allowance = most.min(self.allowance + came);
        self.at = Some(now);
    }
}

impl Permit {
    /// Notes what the request took.
    pub fn spend(&self, tokens: u64) {
        let taken = self.0.taken.lock();
        taken.unwrap_or_else(PoisonError::into_inner).tokens += tokens;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let taken = self.0.taken.lock();
        taken.unwrap_or_else(PoisonError::into_inner).running -= 1;
    }
}

fn too_many(message: String, seconds: u64) -> ApiError {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let error = ApiError::new(status, "rate_limit_exceeded", message);
    error.code("rate_limit_exceeded").retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use concord_proto::Domain;

    use super::*;

    fn account(per_minute: u32, concurrent: u32, tokens: u64) -> Arc<Account> {
        let line = KeyLine {
            name: "ann".to_string(),
            digest: Digest::of(Domain::ApiKey, b"ann"),
            requests_per_minute: Some(per_minute),
            concurrent: Some(concurrent),
            tokens_per_day: Some(tokens),
            admin: false,
        };
        Arc::new(Account::new(line, &Limits::default()))
    }

    #[test]
    fn a_minute_holds_so_many_requests() {
        let account = account(2, 10, 100);
        let at = Duration::from_secs;
        assert!(account.admit(at(1_000)).is_ok());
        assert!(account.admit(at(1_000)).is_ok());
        let error = account.admit(at(1_010)).err().expect("too many");
        assert_eq!(error.retry_after, Some(20));
        assert!(account.admit(at(1_030)).is_ok());
        assert!(account.admit(at(1_031)).is_err());
    }

    #[test]
    fn permits_bound_what_runs_and_days_what_is_spent() {
        let account = account(1_000, 2, 10);
        let noon = Duration::from_secs(12 * 3_600);
        let first = account.admit(noon).expect("one");
        let _second = account.admit(noon).expect("two");
        assert_eq!(
            account.admit(noon).err().expect("three").retry_after,
            Some(1)
        );
        first.spend(10);
        drop(first);
        let error = account.admit(noon).err().expect("all tokens are spent");
        assert_eq!(error.retry_after, Some(12 * 3_600));
        assert!(
            account
                .admit(noon + Duration::from_secs(12 * 3_600))
                .is_ok()
        );
    }
}
