//! The scheduler over a pipeline that is not there: tokens are a function of what is in its pages.

mod invariants;
mod latency;
mod model;
mod random;
mod rules;
mod speed;
mod world;
