//! Names of requests and answers.

use crate::api_error::ApiError;
use crate::hex;

/// `prefix` and 32 random digits.
///
/// # Errors
/// A 500, where the system gives no random numbers.
pub(crate) fn fresh(prefix: &str) -> Result<String, ApiError> {
    Ok(format!("{prefix}{}", hex::encode(&random::<16>()?)))
}

/// A seed for a request that has none. JavaScript holds it without loss.
///
/// # Errors
/// As [`fresh`].
pub(crate) fn seed() -> Result<u64, ApiError> {
    Ok(u64::from_le_bytes(random()?) >> 11)
}

fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        ApiError::server(format!("The system gives no random numbers: {error}."))
    })?;
    Ok(bytes)
}
