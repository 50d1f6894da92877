//! MXFP4 of gpt-oss: blocks of 32 numbers of four bits (e2m1), each with a power of two. The blocks
//! are `[expert, out, in / 32]`; the weight that transformers makes of them is `[expert, in, out]`.

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
    let shape = vec![experts, across * BLOCK, rows];
    Ok(PackedMatrix::new(shape, move || {
        match scales.bytes.iter().position(|byte| *byte == 255) {
            Some(i) => Err(scales.bad(format!("number {i} is NaN: download the file again"))),
            None => Ok(Mxfp4 {
                outs: rows,
                across,
                codes: blocks.bytes,
                scales: scales.bytes,
            }),
        }
    }))
}

struct Mxfp4<'a> {
    /// Numbers of a row of the weight, each of another row of blocks.
    outs: usize,
    /// Blocks of a row.
    across: usize,
    codes: &'a [u8],
    scales: &'a [u8],
}

/// The number of a code, which is exact. Code 8 is -0.
fn e2m1(code: u8) -> f32 {
    let magnitude = f32::from(E2M1_DOUBLED[usize::from(code & 7)]) * 0.5;
    if code < 8 { magnitude } else { -magnitude }
}

impl Mxfp4<'_> {
    /// Puts the rows `ins` of one expert into `out`, which has room for just these.
    fn read_expert(&self, expert: usize, ins: Range<usize>, out: &mut [f32]) {
        for column in 0..self.outs {
            let blocks = (expert * self.outs + column) * self.across;
            for (row, i) in ins.clone().enumerate() {
                let block = blocks + i / BLOCK;
                let byte = self.codes[16 * block + i % BLOCK / 2];
                let code = if i % 2 == 0 { byte & 15 } else { byte >> 4 };
                out[row * self.outs + column] = e2m1(code) * e8m0_to_f32(self.scales[block]);
            }
        }
    }
}

impl RowReader for Mxfp4<'_> {
    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        let ins = self.across * BLOCK;
        let (mut start, mut out) = (rows.start, out);
        while start < rows.end {
            let (expert, first) = (start / ins, start % ins);
            let count = (ins - first).min(rows.end - start);
            let (some, rest) = out.split_at_mut(count * self.outs);
            self.read_expert(expert, first..first + count, some);
            (start, out) = (start + count, rest);
        }
    }
}
