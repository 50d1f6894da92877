//! Continuous batching as a pure core: which tokens of which sequences are in the next pass.
//!
//! [`Scheduler::apply`] takes events and gives effects; it has no clock, no randomness and no
//! threads. It is the only one that knows sequences: it owns the pages of keys and values of a
//! pipeline (the same page numbers in all stages), the prefix cache, the order of who is next, and
//! every token that was drawn. So a lost stage loses nothing: all pages are void, and each sequence
//! is computed anew from its prompt and its answer so far.

mod batch;
mod event;
mod lifecycle;
mod pace;
mod pages;
mod prefix;
mod queue;
mod rate;
mod results;
mod scheduler;
mod sequence;
#[cfg(test)]
mod tests;

pub use event::{Effect, Event, Evicted, Refusal, Settings};
pub use scheduler::Scheduler;
