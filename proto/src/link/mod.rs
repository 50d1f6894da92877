//! Links between the processes of a pool: TLS 1.3, where each end shows the ed25519 key that it is
//! known by, as a raw public key (RFC 7250). There are no certificates and no authorities: whoever
//! connects names the key that has to be at the other end ([`Address`]), and whoever accepts learns
//! the key of who has connected ([`Peer`]). No link is without.
//!
//! [`Address`]: crate::address::Address

mod accept;
mod connect;
mod identity;

pub use accept::{Peer, accept, peer};
pub use connect::{LinkError, connect};
