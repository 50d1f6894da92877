//! Names of requests and answers.

use crate::api_error::ApiError;
use crate::hex;

/// Random digits of a name.
const RANDOM_DIGITS: usize = 32;

/// Digits of the index of a choice.
const INDEX_DIGITS_MAX: usize = 10;

/// `prefix` and 32 random digits.
///
/// # Errors
/// A 500, where the system gives no random numbers.
pub(crate) fn fresh(prefix: &str) -> Result<String, ApiError> {
    Ok(format!(
        "{prefix}{}",
        hex::encode(&random::<{ RANDOM_DIGITS / 2 }>()?)
    ))
}

/// Whether `id` names all choices of an answer, or one of them: whoever has it was given it. Part
/// of a name, by which answers of others could be found, is none.
pub(crate) fn is_answer(id: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut parts = id.split('-');
    let is_kind = matches!(parts.next(), Some("chatcmpl" | "cmpl"));
    let is_random = |part: &str| part.len() == RANDOM_DIGITS && part.bytes().all(is_hex);
    let is_number = |part: &str| {
        (1..=INDEX_DIGITS_MAX).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    is_kind
        && parts.next().is_some_and(is_random)
        && parts.next().is_none_or(is_number)
        && parts.next().is_none()
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

#[cfg(test)]
mod tests {
    use super::{fresh, is_answer};

    #[test]
    fn only_whole_names_are_of_answers() {
        for kind in ["chatcmpl-", "cmpl-"] {
            let id = fresh(kind).expect("random numbers");
            assert!(is_answer(&id), "{id}");
            assert!(is_answer(&format!("{id}-0")));
            assert!(is_answer(&format!("{id}-127")));
            for more in ["-", "-a", "-0-0", "-00000000000", "0"] {
                assert!(!is_answer(&format!("{id}{more}")), "{more}");
            }
            assert!(!is_answer(&id[..id.len() - 1]));
            assert!(!is_answer(kind.trim_end_matches('-')));
        }
        let id = fresh("req-").expect("random numbers");
        assert!(!is_answer(&id) && !is_answer(&id[4..]));
        assert!(!is_answer(&format!("cmpl-{}", "A".repeat(32))));
        assert!(!is_answer(""));
    }
}
