//! MXFP4 of gpt-oss: blocks of 32 4-bit numbers (e2m1) with a power of two as their scale.

use std::ops::Range;

use concord_kernels::packed::{E2M1_DOUBLED, e8m0_to_f32};
use safetensors::Dtype;

use super::PackedMatrix;
use super::parts::PackedParts;
use crate::error::ModelError;
use crate::weights::rows::RowReader;

/// Numbers that share a scale.
const BLOCK: usize = 32;

pub(super) fn open(parts: PackedParts<'_>) -> Result<PackedMatrix<'_>, ModelError> {
    let blocks = parts.typed("_blocks", Dtype::U8)?;
    let &[experts, rows, across, 16] = blocks.shape else {
        return Err(blocks.bad(format!(
            "it has the shape {:?}, and not [experts, out, in / 32, 16]",
            blocks.shape
        )));
    };
    let scales = parts.typed("_scales", Dtype::U8)?;
    let scales = scales.shaped(&[experts, rows, across], "the blocks")?;
    let shape = vec![experts, rows, across * BLOCK];
    Ok(PackedMatrix::new(shape, move || {
        match scales.bytes.iter().position(|byte| *byte == 255) {
            Some(i) => Err(scales.bad(format!("number {i} is NaN: download the file again"))),
            None => Ok(Mxfp4 {
                across,
                codes: blocks.bytes,
                scales: scales.bytes,
            }),
        }
    }))
}

struct Mxfp4<'a> {
    across: usize,
    codes: &'a [u8],
    scales: &'a [u8],
}

/// The number of a code, which is exact. Code 8 is -0.
fn e2m1(code: u8) -> f32 {
    let magnitude = f32::from(E2M1_DOUBLED[usize::from(code & 7)]) * 0.5;
    if code < 8 { magnitude } else { -magnitude }
}

impl RowReader for Mxfp4<'_> {
    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        let first = rows.start * self.across;
        let out = out.as_chunks_mut::<BLOCK>().0;
        for (block, out) in (first..).zip(out) {
            let scale = e8m0_to_f32(self.scales[block]);
            for (pair, byte) in out
                .as_chunks_mut()
                .0
                .iter_mut()
                .zip(&self.codes[16 * block..])
            {
                *pair = [e2m1(byte & 15) * scale, e2m1(byte >> 4) * scale];
            }
        }
    }
}
