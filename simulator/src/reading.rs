//! What others have signed, read by one who looks on.

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::{Signed, canonical};

/// What was signed, without a look at the signature: whoever took it in has checked that, and it
/// takes most of the time of a run.
///
/// # Panics
/// The bytes are no such value.
pub fn read<T: BorshSerialize + BorshDeserialize>(signed: &Signed) -> T {
    canonical::decode(&signed.body).expect("a value of the type that was signed")
}
