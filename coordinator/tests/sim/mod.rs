//! A pool in one thread, from a seed.

#![allow(dead_code)] // Each test file uses a part of it.

pub mod arithmetic;
pub mod auditor;
pub mod bare;
pub mod claims;
pub mod job;
pub mod lies;
pub mod links;
pub mod memory;
pub mod mutation;
pub mod rng;
pub mod room;
pub mod stage;
pub mod swept;
pub mod worker;
pub mod world;
