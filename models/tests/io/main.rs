//! Files in, files out: configurations, weights, data sets, adapters and the hub.
//!
//! One test binary, since linking many is slow. Tests that need the real models of `shared/` say
//! so and pass where it is not there.

mod config;
mod data;
mod export;
mod fixtures;
#[cfg(feature = "hub")]
mod hub;
mod peft;
mod rows;
mod weights;
