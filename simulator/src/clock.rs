//! The time of a run: microseconds that nobody waits for.

/// A millisecond.
pub const MS: u64 = 1_000;
/// A second.
pub const SECOND: u64 = 1_000_000;
