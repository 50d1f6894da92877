//! The scheduler over a simulated pipeline, whose tokens are a function of what is in its pages.

mod invariants;
mod latency;
mod model;
mod random;
mod rules;
mod speed;
mod world;
