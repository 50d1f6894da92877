//! API keys: who may ask, and how much.
//!
//! The file holds digests, never keys. A key has 256 random bits, so its digest needs no salt and
//! no slow hash.

mod account;
mod file;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use concord_proto::{Digest, Domain};

use crate::api_error::ApiError;
use crate::error::GatewayError;
use crate::hex;
use crate::options::Limits;

pub(crate) use account::{Account, Permit};
pub(crate) use file::{KeyLine, read};

/// What every key starts with.
const PREFIX: &str = "ck-";

/// A new key, to be given to its owner, and its line for the file of keys.
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

/// All who may ask.
pub(crate) struct Keyring {
    /// Empty where no key is asked for.
    accounts: Vec<Arc<Account>>,
    /// Whoever asks, where no key is asked for.
    anyone: Arc<Account>,
}

impl Keyring {
    /// The accounts of the file's lines; without a file, anyone's. Where others than those on this
    /// machine are among them (`open`), anyone is no admin.
    pub fn new(lines: Option<Vec<KeyLine>>, open: bool, limits: &Limits) -> Self {
        let anyone = KeyLine {
            name: "anyone".to_string(),
            digest: digest(""),
            requests_per_minute: None,
            concurrent: None,
            tokens_per_day: None,
            admin: !open,
        };
        let account = |line| Arc::new(Account::new(line, limits));
        Self {
            accounts: lines.into_iter().flatten().map(account).collect(),
            anyone: account(anyone),
        }
    }

    /// Whether keys are asked for.
    pub fn is_closed(&self) -> bool {
        !self.accounts.is_empty()
    }

    /// Whose request it is, by its headers.
    ///
    /// # Errors
    /// A 401.
    pub fn account(&self, headers: &HeaderMap) -> Result<Arc<Account>, ApiError> {
        if !self.is_closed() {
            return Ok(self.anyone.clone());
        }
        let given = bearer(headers).ok_or_else(|| {
            unauthorized("An API key is needed: send the header 'Authorization: Bearer ck-...'.")
        })?;
        // All accounts are compared, each in whole: the time tells nothing of which digits fit.
        let given = digest(given);
        let mut found = None;
        for account in &self.accounts {
            if is_same(&account.line.digest, &given) {
                found = Some(account);
            }
        }
        let wrong = || unauthorized("The API key is not known here.");
        found.cloned().ok_or_else(wrong)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn unauthorized(message: &str) -> ApiError {
    let status = StatusCode::UNAUTHORIZED;
    ApiError::new(status, "invalid_request_error", message).code("invalid_api_key")
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
