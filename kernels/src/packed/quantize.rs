//! Numbers to blocks: what `load_in_4bit` and `load_in_8bit` do to a checkpoint. Scalar code, each
//! step in f32 and rounded once, so the blocks are the same on every machine.

mod q4_k;
mod q8_0;

use super::{BlockFormat, nf4};

/// A format that numbers are quantised to.
///
/// ```
/// use concord_kernels::packed::QuantFormat;
///
/// let values: Vec<f32> = (0..64).map(|i| (i as f32 - 32.0) / 32.0).collect();
/// let mut block = vec![0; 36];
/// QuantFormat::Nf4.quantize(&values, &mut block)?;
/// let mut near = vec![0.0; 64];
/// QuantFormat::Nf4.blocks().decode(&block, &mut near);
/// assert_eq!((near[0], near[32]), (-1.0, 0.0));
/// # Ok::<(), concord_kernels::packed::TooLarge>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuantFormat {
    /// The levels of bitsandbytes' NF4, without nested scales; 4.5 bits a number.
    Nf4,
    /// GGUF's Q4_K: each 32 numbers between their least and their largest, in 15 equal steps; 4.5
    /// bits a number.
    Q4K,
    /// GGUF's Q8_0, as ggml quantises; 8.5 bits a number.
    Q8_0,
}

/// A number that has no scale in the format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TooLarge {
    /// Where it is.
    pub index: usize,
    /// The number.
    pub value: f32,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { index, value } = self;
        write!(
            f,
            "element {index} is {value}, and its scale would not fit 16 bits"
        )
    }
}

impl std::error::Error for TooLarge {}

impl QuantFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Nf4, Self::Q4K, Self::Q8_0];

    /// The format of the blocks.
    pub const fn blocks(self) -> BlockFormat {
        match self {
            Self::Nf4 => BlockFormat::Nf4,
            Self::Q4K => BlockFormat::Q4K,
            Self::Q8_0 => BlockFormat::Q8_0,
        }
    }

    /// Quantises finite numbers that fill whole blocks.
    ///
    /// # Errors
    /// [`TooLarge`] with the first number of a block whose scale is beyond f16.
    ///
    /// # Panics
    /// If `values` are no whole blocks, or `bytes` is not as many blocks.
    #[inline(always)]
    pub fn quantize(self, values: &[f32], bytes: &mut [u8]) -> Result<(), TooLarge> {
        let format = self.blocks();
        assert_eq!(
            format.row_bytes(values.len()),
            Some(bytes.len()),
            "{} numbers as {}",
            values.len(),
            format.name()
        );
        match self {
            Self::Nf4 => each_block(values, bytes, |values, block| {
                nf4::encode(values, block);
                true
            }),
            Self::Q4K => each_block(values, bytes, q4_k::encode),
            Self::Q8_0 => each_block(values, bytes, q8_0::encode),
        }
    }
}

/// `encode` says whether the block has a finite scale.
#[inline(always)]
fn each_block<const N: usize, const B: usize>(
    values: &[f32],
    bytes: &mut [u8],
    encode: impl Fn(&[f32; N], &mut [u8; B]) -> bool,
) -> Result<(), TooLarge> {
    let blocks = bytes.as_chunks_mut().0.iter_mut();
    for (index, (values, block)) in values.as_chunks::<N>().0.iter().zip(blocks).enumerate() {
        if !encode(values, block) {
            let largest = |a: &usize, b: &usize| values[*a].abs().total_cmp(&values[*b].abs());
            let at = (0..N).max_by(largest).unwrap_or(0);
            return Err(TooLarge {
                index: index * N + at,
                value: values[at],
            });
        }
    }
    Ok(())
}

/// The nearest f16; none where that is infinite.
#[inline(always)]
fn half(value: f32) -> Option<half::f16> {
    Some(half::f16::from_f32(value)).filter(|half| half.is_finite())
}

/// The nearest whole number of one that is not negative and below 2^23; upwards from a half.
#[inline(always)]
fn nearest(value: f32) -> u32 {
    let whole = value as u32;
    whole + u32::from(value - whole as f32 >= 0.5)
}
