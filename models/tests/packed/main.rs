//! Packed weights against what their own libraries decode (`shared/reference/packed`), by bits.

mod blocks;
mod vectors;
