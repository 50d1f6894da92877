//! A pool in one thread, from a seed.

#![allow(dead_code)] // The session of an event on its way is for whoever debugs.
#![allow(missing_docs)] // What a name says is not said again.

pub mod arithmetic;
pub mod auditor;
pub mod bare;
pub mod claims;
pub mod clock;
pub mod forger;
pub mod frame;
pub mod interval;
pub mod job;
pub mod lies;
pub mod links;
pub mod memory;
pub mod mutation;
pub mod oracle;
pub mod reading;
pub mod rng;
pub mod room;
pub mod scenario;
pub mod seeds;
pub mod stage;
pub mod swept;
pub mod watch;
pub mod worker;
pub mod world;
