//! API keys: which clients are served, and how much.
//!
//! The file holds digests, never keys. A key has 256 random bits, so its digest needs no salt and
//! no slow hash.

mod account;
mod file;
mod permit;
mod usage_file;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use concord_proto::{Digest, Domain};

use crate::api_error::ApiError;
use crate::code::Code;
use crate::error::GatewayError;
use crate::hex;
use crate::options::Limits;

pub(crate) use account::{KeyAccount, Wanted};
pub(crate) use file::{KeyLine, lines, read};
pub(crate) use permit::{Permit, RequestRecord};
pub(crate) use usage_file::{DayUsage, TokensByKey, UsageFile};

use account::State;

const DAY_SECONDS: u64 = 86_400;

/// Most removed keys whose usage of the day is remembered.
const FORMER_MAX: usize = 10_000;

/// The prefix of every key.
const PREFIX: &str = "ck-";

/// A new key, to be given to its owner, and its line for the file of keys.
///
/// ```
/// # fn main() -> Result<(), concord_gateway::GatewayError> {
/// let (key, line) = concord_gateway::new_key("ann")?;
/// assert!(key.starts_with("ck-") && line.starts_with("ann "));
/// // The file has the digest of the key alone.
/// assert!(!line.contains(&key));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`GatewayError::Random`].
pub fn new_key(name: &str) -> Result<(String, String), GatewayError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| GatewayError::Random(error.to_string()))?;
    let key = format!("{PREFIX}{}", hex::encode(&secret));
    let line = format!("{name} {}", digest(&key));
    Ok((key, line))
}

fn digest(key: &str) -> Digest {
    Digest::of(Domain::ApiKey, key.as_bytes())
}

/// The accounts of all keys.
pub(crate) struct Keyring {
    /// `None` where no key is needed.
    accounts: Option<RwLock<Arc<Vec<Arc<KeyAccount>>>>>,
    /// Keys that were removed from the file. Their usage counts again if they come back.
    former: Mutex<BTreeMap<Digest, Arc<State>>>,
    /// The account of all clients, where no key is needed.
    anyone: Arc<KeyAccount>,
    limits: Limits,
}

impl Keyring {
    /// The accounts of the file's lines, with the tokens that they have used today; without a file,
    /// one account for all clients. Its clients are admins unless the API is open to other machines
    /// (`open`).
    pub fn new(
        lines: Option<Vec<KeyLine>>,
        used: &TokensByKey,
        open: bool,
        limits: &Limits,
    ) -> Self {
        let anyone = KeyLine {
            name: "anyone".to_string(),
            digest: digest(""),
            requests_per_minute: None,
            concurrent: None,
            tokens_per_day: None,
            admin: !open,
        };
        let today = today();
        let account = |line: KeyLine| {
            let tokens = used.get(&line.digest).copied().unwrap_or(0);
            let state = Arc::new(State::new((today, tokens), limits));
            Arc::new(KeyAccount::new(line, state, limits))
        };
        let of_anyone = Arc::new(State::of_anyone(limits));
        let anyone = Arc::new(KeyAccount::new(anyone, of_anyone, limits));
        let accounts = lines.map(|lines| lines.into_iter().map(account).collect());
        Self {
            accounts: accounts.map(|accounts: Vec<_>| RwLock::new(Arc::new(accounts))),
            former: Mutex::default(),
            anyone,
            limits: *limits,
        }
    }

    /// Whether a key is needed.
    pub fn is_closed(&self) -> bool {
        self.accounts.is_some()
    }

    /// Replaces the lines. The usage of keys is kept. A key without a line is refused from now on,
    /// and its running requests are ended. Returns how many keys were added and removed.
    pub fn replace(&self, lines: Vec<KeyLine>) -> (usize, usize) {
        let Some(accounts) = &self.accounts else {
            return (0, 0);
        };
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all(accounts);
        let before = before.iter().map(|old| (old.owner(), old.state.clone()));
        let mut before: BTreeMap<Digest, Arc<State>> = before.collect();
        let mut came = 0;
        let mut account = |line: KeyLine| {
            let state = before.remove(&line.digest).unwrap_or_else(|| {
                came += 1;
                let known = former.remove(&line.digest);
                known.unwrap_or_else(|| Arc::new(State::new((today(), 0), &self.limits)))
            });
            state.revoked.send_replace(false);
            Arc::new(KeyAccount::new(line, state, &self.limits))
        };
        let new: Vec<_> = lines.into_iter().map(&mut account).collect();
        *accounts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        let went = before.len();
        let today = today();
        former.retain(|_, state| state.used(today) != (0, 0));
        for (digest, state) in before {
            state.revoked.send_replace(true);
            if former.len() < FORMER_MAX {
                former.insert(digest, state);
            }
        }
        (came, went)
    }

    /// Whether any key has a limit on the tokens of a day.
    pub fn has_quotas(&self) -> bool {
        let is_bound = |account: &Arc<KeyAccount>| account.line.tokens_per_day.is_some();
        let accounts = self.accounts.as_ref().map(all);
        accounts.is_some_and(|accounts| accounts.iter().any(is_bound))
    }

    /// What keys have used and set aside today.
    pub fn used(&self) -> DayUsage {
        let mut usage = DayUsage {
            day: today(),
            ..DayUsage::default()
        };
        let mut note = |key: Digest, state: &State| {
            let (used, set_aside) = state.used(usage.day);
            for (tokens, map) in [(used, &mut usage.used), (set_aside, &mut usage.set_aside)] {
                if tokens > 0 {
                    map.insert(key, tokens);
                }
            }
        };
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, state) in former.iter() {
            note(*key, state);
        }
        for account in self
            .accounts
            .as_ref()
            .map(all)
            .iter()
            .flat_map(|all| all.iter())
        {
            note(account.owner(), &account.state);
        }
        usage
    }

    /// The account of a request, by its headers.
    ///
    /// # Errors
    /// A 401.
    pub fn account(&self, headers: &HeaderMap) -> Result<Arc<KeyAccount>, ApiError> {
        let Some(accounts) = &self.accounts else {
            return Ok(self.anyone.clone());
        };
        let given = bearer(headers).ok_or_else(|| {
            unauthorized("An API key is needed: send the header 'Authorization: Bearer ck-...'.")
        })?;
        // All accounts are compared in full, so that the time does not reveal how many digits
        // match.
        let given = digest(given);
        let mut found = None;
        let accounts = all(accounts);
        for account in accounts.iter() {
            if is_same(&account.line.digest, &given) {
                found = Some(account);
            }
        }
        let wrong = || unauthorized("The API key is not known here.");
        found.cloned().ok_or_else(wrong)
    }
}

fn all(accounts: &RwLock<Arc<Vec<Arc<KeyAccount>>>>) -> Arc<Vec<Arc<KeyAccount>>> {
    accounts
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Days since 1970, in UTC.
pub(crate) fn today() -> u64 {
    now().as_secs() / DAY_SECONDS
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn unauthorized(message: &str) -> ApiError {
    let status = StatusCode::UNAUTHORIZED;
    ApiError::new(status, "invalid_request_error", message).code(Code::InvalidApiKey)
}

fn is_same(a: &Digest, b: &Digest) -> bool {
    let differing = a.0.iter().zip(&b.0).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0
}

/// The time since 1970.
pub(crate) fn now() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default()
}
