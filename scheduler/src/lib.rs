//! Continuous batching as a pure core: which tokens of which sequences are in the next pass.
