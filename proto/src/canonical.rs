//! The one canonical encoding: borsh, bounded, with nothing left over.
//!
//! Decoding re-encodes and compares, so that no two byte strings stand for one value.
//!
//! ```
//! use concord_proto::canonical::{decode, encode};
//!
//! let bytes = encode(&(7_u32, "step".to_string()));
//! assert_eq!(bytes, [7, 0, 0, 0, 4, 0, 0, 0, b's', b't', b'e', b'p']);
//! assert_eq!(decode::<(u32, String)>(&bytes)?.0, 7);
//! assert!(decode::<u32>(&bytes).is_err(), "bytes are left over");
//! # Ok::<(), concord_proto::canonical::DecodeError>(())
//! ```

use borsh::{BorshDeserialize, BorshSerialize};

use crate::limits::MESSAGE_BYTES_MAX;

/// Why bytes were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Over the bound on messages.
    #[error("a message of {0} bytes: over the bound of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// Not an encoding of the type.
    #[error("not an encoding of {what}: {why}")]
    Malformed {
        /// The type expected.
        what: &'static str,
        /// What borsh found.
        why: String,
    },
    /// Another encoding of the same value, or bytes after the end.
    #[error("not the canonical encoding of {0}")]
    NotCanonical(&'static str),
}

/// A type that has a canonical encoding.
pub trait Canonical: BorshSerialize + BorshDeserialize {}

impl<T: BorshSerialize + BorshDeserialize> Canonical for T {}

/// The canonical encoding of `value`.
pub fn encode<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

/// Decodes `bytes`, which must be the canonical encoding of a value.
///
/// # Errors
/// [`DecodeError`] for anything else; never panics, and never allocates more than a small multiple
/// of the length of `bytes`.
pub fn decode<T: BorshSerialize + BorshDeserialize>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    let what = short_type_name::<T>();
    let value = T::try_from_slice(bytes).map_err(|error| DecodeError::Malformed {
        what,
        why: error.to_string(),
    })?;
    if encode(&value) == bytes {
        Ok(value)
    } else {
        Err(DecodeError::NotCanonical(what))
    }
}

fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let generics = name.find('<').unwrap_or(name.len());
    let start = name[..generics].rfind("::").map_or(0, |colons| colons + 2);
    &name[start..]
}
