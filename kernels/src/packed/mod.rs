//! Packed weights: matrices whose numbers stay blocks of a [`BlockFormat`] in memory.

mod bytes;
mod nf4;
mod quantize;
mod rows;

pub use bytes::{ByteOwner, SharedBytes};
pub use concord_formats::{
    BlockFormat, E2M1_DOUBLED, INT8_STEP, IQ4_LEVELS, NF4_LEVELS, bf16_to_f32, e4m3_to_f32,
    e8m0_to_f32, f16_to_f32,
};
pub use quantize::{QuantFormat, TooLarge};
pub use rows::PackedRows;
