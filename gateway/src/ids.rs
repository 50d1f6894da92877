//! Names of requests and answers.

use concord_proto::{Digest, Domain};

use crate::api_error::ApiError;
use crate::hex;

/// Hexadecimal digits of a name. In a name of an answer, one half is derived from its owner.
const DIGITS: usize = 32;

/// Bytes of each half of an answer's name: the random one, and the one derived from its owner.
const HALF: usize = DIGITS / 4;

/// Most letters of a name that a client gives its request.
const GIVEN_MAX: usize = 128;

/// Most digits of the index of a choice.
const INDEX_DIGITS_MAX: usize = 10;

/// `prefix` and 32 random digits.
///
/// # Errors
/// A 500, where the system gives no random numbers.
pub(crate) fn fresh(prefix: &str) -> Result<String, ApiError> {
    Ok(format!(
        "{prefix}{}",
        hex::encode(&random::<{ DIGITS / 2 }>()?)
    ))
}

/// A name for an answer to `owner`: `prefix`, 16 random digits, and 16 digits that are derived from
/// these and the owner. So the owner of a receipt can be checked without being stored.
///
/// # Errors
/// As [`fresh`].
pub(crate) fn answer(prefix: &str, owner: &Digest) -> Result<String, ApiError> {
    let random = random::<HALF>()?;
    let all = [random, owned(&random, owner)].concat();
    Ok(format!("{prefix}{}", hex::encode(&all)))
}

/// Whether `id`, for which [`is_answer`] is true, was made for `owner`.
pub(crate) fn is_of(id: &str, owner: &Digest) -> bool {
    let digits = id.split('-').nth(1).and_then(hex::decode);
    let halves = digits.as_deref().and_then(|all| all.split_first_chunk());
    halves.is_some_and(|(random, rest)| rest == owned(random, owner))
}

fn owned(random: &[u8; HALF], owner: &Digest) -> [u8; HALF] {
    let bytes = [&random[..], &owner.0[..]].concat();
    let digest = Digest::of(Domain::AnswerOwner, &bytes);
    let mut first = [0; HALF];
    first.copy_from_slice(&digest.0[..HALF]);
    first
}

/// The name that a client gave its request, if it may appear in headers and logs.
pub(crate) fn given(id: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    let fits = (1..=GIVEN_MAX).contains(&id.len()) && id.bytes().all(is_plain);
    fits.then_some(id)
}

/// Whether `id` is the name of an answer, or of one of its choices. A part of a name is refused,
/// since it could match other answers.
pub(crate) fn is_answer(id: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut parts = id.split('-');
    let is_kind = matches!(parts.next(), Some("chatcmpl" | "cmpl"));
    let is_random = |part: &str| part.len() == DIGITS && part.bytes().all(is_hex);
    let is_number = |part: &str| {
        (1..=INDEX_DIGITS_MAX).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    is_kind
        && parts.next().is_some_and(is_random)
        && parts.next().is_none_or(is_number)
        && parts.next().is_none()
}

/// A seed for a request that has none. It has 53 bits, so that JavaScript represents it exactly.
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
    use concord_proto::{Digest, Domain};

    use super::{answer, fresh, given, is_answer, is_of};

    #[test]
    fn an_answer_is_one_owners() {
        let [ann, bob] = [b"ann", b"bob"].map(|key| Digest::of(Domain::ApiKey, key));
        for _ in 0..100 {
            let id = answer("chatcmpl-", &ann).expect("random numbers");
            assert!(is_answer(&id), "{id}");
            assert!(is_of(&id, &ann) && is_of(&format!("{id}-3"), &ann));
            assert!(!is_of(&id, &bob));
            let other = fresh("chatcmpl-").expect("random numbers");
            assert!(!is_of(&other, &ann));
        }
        for none in ["", "chatcmpl", "chatcmpl-", "chatcmpl-00", "chatcmpl-xy"] {
            assert!(!is_of(none, &ann));
        }
    }

    #[test]
    fn names_that_clients_give() {
        for right in ["a", "req-1.2", "Root=1-67891233-abcdef", "a:b/c+d=@_"] {
            assert_eq!(given(right), Some(right));
        }
        let long = "a".repeat(129);
        for wrong in ["", "a b", "a\nb", "a\"b", "\u{e9}", &long] {
            assert_eq!(given(wrong), None, "{wrong}");
        }
    }

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
