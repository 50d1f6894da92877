//! Workers that serve, over loopback, with a coordinator made here.

mod adapters;
mod bits;
mod case;
mod coordinator;
mod ends;
mod failover;
mod garbage;
mod hop;
mod judged;
#[cfg(feature = "liars")]
mod lies;
mod model;
mod pool;
