//! Quantising numbers to blocks, by all threads of rayon's pool: the scalar code of
//! [`crate::packed`], compiled for each instruction set.

use rayon::prelude::*;

use crate::isa::Isa;
use crate::packed::{QuantFormat, TooLarge};

/// Blocks that a thread takes at a time.
const BLOCKS: usize = 256;

/// Quantises numbers as [`QuantFormat::quantize`] does, and then puts in their place those that the
/// blocks stand for.
///
/// # Errors
/// As [`QuantFormat::quantize`]; then the numbers are as they were, or those of their blocks.
///
/// # Panics
/// As [`QuantFormat::quantize`].
pub fn quantize(
    isa: Isa,
    format: QuantFormat,
    values: &mut [f32],
    bytes: &mut [u8],
) -> Result<(), TooLarge> {
    let blocks = format.blocks();
    assert_eq!(
        blocks.row_bytes(values.len()),
        Some(bytes.len()),
        "{} numbers as {}",
        values.len(),
        blocks.name()
    );
    let at_once = BLOCKS * blocks.elements();
    values
        .par_chunks_mut(at_once)
        .zip(bytes.par_chunks_mut(BLOCKS * blocks.bytes()))
        .enumerate()
        .map(|(i, (values, bytes))| {
            there_and_back(isa, format, values, bytes).map_err(|error| TooLarge {
                index: i * at_once + error.index,
                ..error
            })
        })
        .find_first(Result::is_err)
        .unwrap_or(Ok(()))
}

per_isa! {
    fn there_and_back(
        format: QuantFormat,
        values: &mut [f32],
        bytes: &mut [u8],
    ) -> Result<(), TooLarge> = there_and_back_body
}

#[inline(always)]
fn there_and_back_body(
    format: QuantFormat,
    values: &mut [f32],
    bytes: &mut [u8],
) -> Result<(), TooLarge> {
    format.quantize(values, bytes)?;
    format.blocks().decode(bytes, values);
    Ok(())
}
