//! Digests, Merkle trees and signatures: what every other message is bound by.

mod digest;
pub mod merkle;
mod signed;

pub use digest::{Digest, Domain, Hasher};
pub use signed::{Keypair, PublicKey, Signed, SignedError, WorkerId};
