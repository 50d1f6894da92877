//! Files in, files out: configurations, weights, adapters and the hub.
//!
//! One test binary, since linking many is slow. Tests that need the real models of `shared/` say
//! so and pass where it is not there.

mod canonical;
mod config;
mod defaults;
mod experts;
mod export;
mod families;
mod fixtures;
mod generation;
mod head;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_access;
#[cfg(feature = "hub")]
mod hub_data;
mod keys;
mod peft;
mod pickle;
mod transformers;
mod weight_rows;
mod weights;
