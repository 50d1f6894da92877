//! Which answers are audited: by a nonce that the coordinator has committed to.

use crate::crypto::{Digest, Domain, Hasher};

/// The commitment to a nonce, which is published before it is used.
pub fn nonce_commitment(nonce: &[u8; 32]) -> Digest {
    Digest::of(Domain::Nonce, nonce)
}

/// The seed of a draw: over the nonce and what was signed, in order.
pub fn draw_seed(nonce: &[u8; 32], signed: &[Digest]) -> Digest {
    let mut hasher = Hasher::new(Domain::Draw);
    hasher.update(nonce);
    signed.iter().for_each(|digest| hasher.update(&digest.0));
    hasher.finish()
}
