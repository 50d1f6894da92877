//! The limits of one key, and what it has used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use concord_proto::Digest;
use concord_proto::serving::Usage;
use tokio::sync::watch;

use super::DAY_SECONDS;
use super::file::KeyLine;
use crate::api_error::ApiError;
use crate::code::Code;
use crate::options::Limits;
use crate::readers::ReaderShare;

const SECOND_NANOS: u128 = 1_000_000_000;

/// What a request takes from its key's allowance: the nanoseconds of a minute.
const REQUEST: u128 = 60 * SECOND_NANOS;

/// When to ask again if running requests may give tokens back.
const SETTLING_SECONDS: u64 = 5;

/// A key and its limits, as read once from the key file.
pub(crate) struct KeyAccount {
    pub line: KeyLine,
    requests_per_minute: u32,
    concurrent: u32,
    pub state: Arc<State>,
}

/// The state of a key, which is kept when the key file is read again.
pub(crate) struct State {
    taken: Mutex<Taken>,
    /// Its share of the threads and the memory that read requests.
    pub share: ReaderShare,
    /// Whether its line is gone from the file.
    pub revoked: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Taken {
    /// A token bucket for requests, valid once `at` is set: a request takes [`REQUEST`] from it,
    /// and each nanosecond adds the number of requests per minute.
    allowance: u128,
    at: Option<Duration>,
    running: u32,
    /// Days since 1970, to which `tokens` belongs.
    day: u64,
    tokens: u64,
    /// Tokens set aside for running requests.
    reserved: u64,
}

/// What a request wants to set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Most tokens of each answer, if the request gives a number.
    pub answer: Option<u32>,
    /// Tokens that each answer has room for.
    pub room: u32,
    /// Answers to the prompt.
    pub choices: u32,
}

impl State {
    /// The state of a key that has used `tokens` on `day`.
    pub fn new((day, tokens): (u64, u64), limits: &Limits) -> Self {
        let taken = Taken {
            day,
            tokens,
            ..Taken::default()
        };
        Self {
            taken: Mutex::new(taken),
            share: ReaderShare::new(limits),
            revoked: watch::channel(false).0,
        }
    }

    /// The state of all clients together, where no key is needed.
    pub fn of_anyone(limits: &Limits) -> Self {
        Self {
            share: ReaderShare::whole(limits),
            ..Self::new((0, 0), limits)
        }
    }

    /// Tokens used on a day, and those set aside for running requests.
    pub fn used(&self, day: u64) -> (u64, u64) {
        let taken = self.taken();
        let used = if taken.day == day { taken.tokens } else { 0 };
        (used, taken.reserved)
    }

    /// Releases what a request has set aside, and counts what it used.
    pub fn settle(&self, reserved: u64, usage: &Usage, now: Duration) {
        let mut taken = self.taken();
        taken.begin_day(now);
        taken.reserved = taken.reserved.saturating_sub(reserved);
        taken.tokens += u64::from(usage.prompt) + u64::from(usage.answer);
    }

    /// Counts out a request that has ended.
    pub fn leave(&self) {
        self.taken().running -= 1;
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyAccount {
    pub fn new(line: KeyLine, state: Arc<State>, limits: &Limits) -> Self {
        let per_minute = line.requests_per_minute;
        Self {
            requests_per_minute: per_minute.unwrap_or(limits.requests_per_minute),
            concurrent: line.concurrent.unwrap_or(limits.concurrent),
            line,
            state,
        }
    }

    /// Identifies the key for fair queueing and in the names of its answers.
    pub fn owner(&self) -> Digest {
        self.line.digest
    }

    /// Checks that the key may load and unload adapters.
    ///
    /// # Errors
    /// A 403.
    pub fn check_admin(&self) -> Result<(), ApiError> {
        if self.line.admin {
            return Ok(());
        }
        let message = "This needs an API key that has 'admin' on its line.";
        let error = ApiError::new(StatusCode::FORBIDDEN, "invalid_request_error", message);
        Err(error.code(Code::InsufficientPermissions))
    }

    /// Counts in a request that begins at `now`, the time since 1970.
    ///
    /// # Errors
    /// A 429 that says when to ask again.
    pub(super) fn enter(&self, now: Duration) -> Result<(), ApiError> {
        let mut taken = self.state.taken();
        if self.concurrent > 0 && taken.running >= self.concurrent {
            let message = format!("{} requests of this key run already.", taken.running);
            return Err(too_many(message, 1));
        }
        taken.begin_day(now);
        let most = self.line.tokens_per_day;
        if let Some(most) = most.filter(|most| taken.tokens >= *most) {
            let message = format!("This key has used its {most} tokens of today (UTC).");
            return Err(too_many(message, left_of_day(now)));
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
        Ok(())
    }

    /// Sets tokens aside for the answers to a prompt. Returns how many each answer may have, and
    /// how many are set aside. If the request gives no length, an answer may have what is left of
    /// the day.
    ///
    /// # Errors
    /// A 429 where too little is left of the day.
    pub fn reserve(&self, wanted: Wanted, now: Duration) -> Result<(u32, u64), ApiError> {
        let mut taken = self.state.taken();
        taken.begin_day(now);
        let choices = u64::from(wanted.choices.max(1));
        let mut answer = wanted.answer.unwrap_or(wanted.room);
        let need = |answer: u32| u64::from(wanted.prompt) + choices * u64::from(answer);
        if let Some(most) = self.line.tokens_per_day {
            let left = most.saturating_sub(taken.tokens + taken.reserved);
            if wanted.answer.is_none() {
                let share = left.saturating_sub(u64::from(wanted.prompt)) / choices;
                answer = answer.min(u32::try_from(share).unwrap_or(u32::MAX)).max(1);
            }
            if need(answer) > left {
                let seconds = match taken.tokens + need(answer) <= most {
                    true => SETTLING_SECONDS,
                    false => left_of_day(now),
                };
                let message = format!(
                    "This key may use {most} tokens a day (UTC): {} are used, and {} set aside for \
                     requests under way. This request may need {}: ask for fewer by 'max_tokens'.",
                    taken.tokens,
                    taken.reserved,
                    need(answer)
                );
                return Err(too_many(message, seconds));
            }
        }
        taken.reserved += need(answer);
        Ok((answer, need(answer)))
    }
}

impl Taken {
    fn begin_day(&mut self, now: Duration) {
        let day = now.as_secs() / DAY_SECONDS;
        if self.day != day {
            (self.day, self.tokens) = (day, 0);
        }
    }

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

fn left_of_day(now: Duration) -> u64 {
    DAY_SECONDS - now.as_secs() % DAY_SECONDS
}

fn too_many(message: String, seconds: u64) -> ApiError {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let error = ApiError::new(status, "rate_limit_exceeded", message);
    error.code(Code::RateLimitExceeded).retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use concord_proto::Domain;

    use super::*;

    const NOON: Duration = Duration::from_secs(12 * 3_600);

    fn account(per_minute: u32, concurrent: u32, tokens: u64) -> Arc<KeyAccount> {
        let line = KeyLine {
            name: "ann".to_string(),
            digest: Digest::of(Domain::ApiKey, b"ann"),
            requests_per_minute: Some(per_minute),
            concurrent: Some(concurrent),
            tokens_per_day: Some(tokens),
            admin: false,
        };
        let limits = Limits::default();
        let state = Arc::new(State::new((0, 0), &limits));
        Arc::new(KeyAccount::new(line, state, &limits))
    }

    fn used(prompt: u32, answer: u32) -> Usage {
        Usage {
            prompt,
            cached: 0,
            answer,
        }
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
        let first = account.admit(NOON).expect("one");
        let second = account.admit(NOON).expect("two");
        let third = account.admit(NOON).err().expect("three");
        assert_eq!(third.retry_after, Some(1));
        drop((first, second));
        account.state.settle(0, &used(4, 6), NOON);
        let error = account.admit(NOON).err().expect("all tokens are spent");
        assert_eq!(error.retry_after, Some(12 * 3_600));
        assert!(account.admit(NOON * 2).is_ok());
    }

    #[test]
    fn what_is_set_aside_is_not_given_twice() {
        let account = account(1_000, 100, 100);
        let wanted = |answer: Option<u32>, choices: u32| Wanted {
            prompt: 10,
            answer,
            room: 500,
            choices,
        };
        // What is left bounds an answer that has no bound of its own.
        assert_eq!(account.reserve(wanted(None, 1), NOON), Ok((90, 100)));
        let error = account
            .reserve(wanted(Some(1), 1), NOON)
            .expect_err("nothing is left");
        assert_eq!(error.retry_after, Some(5), "{error:?}");
        account.state.settle(100, &used(10, 20), NOON);
        assert_eq!(account.reserve(wanted(Some(25), 2), NOON), Ok((25, 60)));
        assert_eq!(account.reserve(wanted(None, 1), NOON).ok(), None);
        account.state.settle(60, &used(10, 50), NOON);
        // 90 are used: what never fits today is refused until tomorrow.
        let error = account.reserve(wanted(None, 1), NOON).expect_err("10 left");
        assert_eq!(error.retry_after, Some(12 * 3_600), "{error:?}");
        let tomorrow = NOON * 3;
        assert_eq!(account.reserve(wanted(None, 3), tomorrow), Ok((30, 100)));
    }

    /// However requests interleave, a day never gives more than it has.
    #[test]
    fn no_order_of_requests_overshoots() {
        let mut state = 1_u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let account = account(1_000, 100, 1_000);
        let mut running: Vec<(u64, u32, u32, u32)> = Vec::new();
        let mut spent = 0;
        for _ in 0..10_000 {
            if next(2) == 0 {
                let choices = 1 + next(3);
                let wanted = Wanted {
                    prompt: 1 + next(20),
                    answer: (next(2) == 0).then(|| 1 + next(50)),
                    room: 80,
                    choices,
                };
                if let Ok((answer, reserved)) = account.reserve(wanted, NOON) {
                    running.push((reserved, wanted.prompt, answer, choices));
                }
            } else if !running.is_empty() {
                let at = next(running.len() as u32) as usize;
                let (reserved, prompt, answer, choices) = running.swap_remove(at);
                let took = used(prompt, choices * (1 + next(answer)));
                spent += took.prompt + took.answer;
                account.state.settle(reserved, &took, NOON);
            }
            assert!(spent <= 1_000, "{spent}");
        }
        assert!(spent > 900, "{spent}");
    }
}
