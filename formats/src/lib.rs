//! How numbers are written down: what the bytes of a block of numbers mean, as scalar code.
//!
//! A block is some numbers that share a scale. What it holds is defined in f32 (NUMERICS.md,
//! section 1): every product of a scale of 16 bits and a code is exact there, so the order of the
//! factors and fused operations cannot change a bit; formats with a minimum round once, at the last
//! step, and those with scales of 32 bits once for each product.
//!
//! ```
//! use concord_formats::BlockFormat;
//!
//! // A scale of 0.5 (an f16), then 32 codes.
//! let mut block = vec![0x00, 0x38];
//! block.extend((0..32_i8).map(|code| (code - 16) as u8));
//! let mut values = [0.0; 32];
//! BlockFormat::Q8_0.decode(&block, &mut values);
//! assert_eq!(values[..3], [-8.0, -7.5, -7.0]);
//! ```

mod grouped;
mod halves;
mod nf4;
mod small;
mod tables;
pub mod trigonometry;
mod wide;

use borsh::{BorshDeserialize, BorshSerialize};

pub use grouped::INT8_STEP;
pub use halves::{bf16_to_f32, e4m3_to_f32, e8m0_to_f32, f16_to_f32};
pub use tables::{E2M1_DOUBLED, IQ4_LEVELS, NF4_LEVELS};

/// A format of blocks, by its name in GGUF where it has one. The numbers of a row fill whole
/// blocks.
///
/// Tensors are stored and sent with the number of their format: one that is new is the last.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub enum BlockFormat {
    /// IEEE binary32, one number a block.
    F32,
    /// IEEE binary16, one number a block.
    F16,
    /// The upper half of a binary32, one number a block.
    Bf16,
    /// Codes of 8 bits.
    Q8_0,
    /// Codes of 4 bits around 8.
    Q4_0,
    /// Codes of 4 bits above a minimum.
    Q4_1,
    /// Codes of 5 bits around 16.
    Q5_0,
    /// Codes of 5 bits above a minimum.
    Q5_1,
    /// Codes of 2 bits, with scales and minima of 4 bits.
    Q2K,
    /// Codes of 3 bits, with scales of 6 bits.
    Q3K,
    /// Codes of 4 bits, with scales and minima of 6 bits.
    Q4K,
    /// Codes of 5 bits, with scales and minima of 6 bits.
    Q5K,
    /// Codes of 6 bits, with scales of 8 bits.
    Q6K,
    /// Codes of 4 bits that name one of 16 levels.
    Iq4Nl,
    /// The same levels, with scales of 6 bits.
    Iq4Xs,
    /// Numbers of 4 bits (e2m1) with a power of two.
    Mxfp4,
    /// Codes of 4 bits that name one of the 16 levels of bitsandbytes' NF4, with a scale of 32
    /// bits: its blocks of 64, each with its scale before its codes.
    Nf4,
    /// 32 codes of 4 bits around a zero point, with a scale of 32 bits: GPTQ, AWQ and packed
    /// integers of compressed-tensors, whose rows are repacked so as they are read.
    U4x32,
    /// 64 such codes.
    U4x64,
    /// 128 such codes.
    U4x128,
    /// 64 codes of 8 bits around a zero point, with a scale of 32 bits.
    U8x64,
    /// 64 numbers of 8 bits (e4m3) with a scale of 32 bits: FP8.
    E4m3x64,
    /// 64 integers of 8 bits with the largest magnitude of their row: LLM.int8 of bitsandbytes.
    Int8x64,
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [Self; 23] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
        Self::Nf4,
        Self::U4x32,
        Self::U4x64,
        Self::U4x128,
        Self::U8x64,
        Self::E4m3x64,
        Self::Int8x64,
    ];

    /// The name in GGUF, or, of a format that GGUF lacks, its own.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Iq4Nl => "IQ4_NL",
            Self::Iq4Xs => "IQ4_XS",
            Self::Mxfp4 => "MXFP4",
            Self::Nf4 => "NF4",
            Self::U4x32 => "U4_32",
            Self::U4x64 => "U4_64",
            Self::U4x128 => "U4_128",
            Self::U8x64 => "U8_64",
            Self::E4m3x64 => "E4M3_64",
            Self::Int8x64 => "INT8_64",
        }
    }

    /// Numbers in a block.
    pub const fn elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0
            | Self::Q4_0
            | Self::Q4_1
            | Self::Q5_0
            | Self::Q5_1
            | Self::Iq4Nl
            | Self::Mxfp4
            | Self::U4x32 => 32,
            Self::Nf4 | Self::U4x64 | Self::U8x64 | Self::E4m3x64 | Self::Int8x64 => 64,
            Self::U4x128 => 128,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K | Self::Iq4Xs => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Mxfp4 => 17,
            Self::Nf4 => 36,
            Self::U4x32 => 22,
            Self::U4x64 => 38,
            Self::U4x128 | Self::U8x64 => 70,
            Self::E4m3x64 | Self::Int8x64 => 68,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Iq4Xs => 136,
        }
    }

    /// Bytes of a row of `elements` numbers, or `None` where they fill no whole number of blocks
    /// or the bytes cannot be counted.
    pub const fn row_bytes(self, elements: usize) -> Option<usize> {
        match elements.is_multiple_of(self.elements()) {
            true => (elements / self.elements()).checked_mul(self.bytes()),
            false => None,
        }
    }

    /// The numbers of whole blocks. A broken scale gives NaN or infinity, as its definition says;
    /// who reads a model refuses those.
    ///
    /// # Panics
    /// If `bytes` is not as many whole blocks as `out` has room for.
    #[inline(always)]
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(
            self.row_bytes(out.len()),
            Some(bytes.len()),
            "{} numbers of {}",
            out.len(),
            self.name()
        );
        match self {
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F16 => each(bytes, out, |half| f16_to_f32(u16::from_le_bytes(half))),
            Self::Bf16 => each(bytes, out, |half| bf16_to_f32(u16::from_le_bytes(half))),
            Self::Q8_0 => blocks(bytes, out, small::q8_0),
            Self::Q4_0 => blocks(bytes, out, small::q4_0),
            Self::Q4_1 => blocks(bytes, out, small::q4_1),
            Self::Q5_0 => blocks(bytes, out, small::q5_0),
            Self::Q5_1 => blocks(bytes, out, small::q5_1),
            Self::Iq4Nl => blocks(bytes, out, small::iq4_nl),
            Self::Mxfp4 => blocks(bytes, out, small::mxfp4),
            Self::Nf4 => blocks(bytes, out, nf4::decode),
            Self::U4x32 => blocks(bytes, out, grouped::u4::<22, 32>),
            Self::U4x64 => blocks(bytes, out, grouped::u4::<38, 64>),
            Self::U4x128 => blocks(bytes, out, grouped::u4::<70, 128>),
            Self::U8x64 => blocks(bytes, out, grouped::u8::<70, 64>),
            Self::E4m3x64 => blocks(bytes, out, grouped::e4m3::<68, 64>),
            Self::Int8x64 => blocks(bytes, out, grouped::int8::<68, 64>),
            Self::Q2K => blocks(bytes, out, wide::q2_k),
            Self::Q3K => blocks(bytes, out, wide::q3_k),
            Self::Q4K => blocks(bytes, out, wide::q4_k),
            Self::Q5K => blocks(bytes, out, wide::q5_k),
            Self::Q6K => blocks(bytes, out, wide::q6_k),
            Self::Iq4Xs => blocks(bytes, out, wide::iq4_xs),
        }
    }
}

#[inline(always)]
fn each<const B: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; B]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = number(*bytes);
    }
}

#[inline(always)]
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let out = out.as_chunks_mut().0;
    for (out, block) in out.iter_mut().zip(bytes.as_chunks().0) {
        decode(block, out);
    }
}

/// The f32 at the start of a block.
#[inline(always)]
fn single(block: &[u8]) -> f32 {
    f32::from_le_bytes([block[0], block[1], block[2], block[3]])
}

/// The low and the high four bits.
#[inline(always)]
const fn nibbles(byte: u8) -> [u8; 2] {
    [byte & 15, byte >> 4]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_whole_blocks() {
        assert_eq!(BlockFormat::Q4K.row_bytes(512), Some(288));
        assert_eq!(BlockFormat::Q4K.row_bytes(128), None);
        assert_eq!(BlockFormat::F32.row_bytes(usize::MAX), None);
        for format in BlockFormat::ALL {
            let bytes = vec![0; 3 * format.bytes()];
            let mut out = vec![1.0; 3 * format.elements()];
            format.decode(&bytes, &mut out);
            assert!(out.iter().all(|value| *value == 0.0), "{}", format.name());
        }
    }

    #[test]
    #[should_panic(expected = "33 numbers of Q8_0")]
    fn half_a_block_is_a_bug_of_the_caller() {
        BlockFormat::Q8_0.decode(&[0; 34], &mut [0.0; 33]);
    }
}
