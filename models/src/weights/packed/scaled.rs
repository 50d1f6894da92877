//! Matrices of FP8 or 8-bit integers, with one scale, one for each row, or one for each block.

use std::ops::Range;

use concord_kernels::packed::{BlockFormat, e4m3_to_f32, e8m0_to_f32};
use safetensors::Dtype;

use super::PackedMatrix;
use super::codes::{Codes, fitting};
use super::method::Fp8Options;
use super::parts::{PackedParts, StoredPart};
use crate::error::ModelError;

/// FP8 with the scales `weight_scale_inv`, which are factors in spite of that name, or
/// `weight_scale`.
pub(super) fn open_fp8<'a>(
    options: &Fp8Options,
    parts: PackedParts<'a>,
) -> Result<PackedMatrix<'a>, ModelError> {
    let weight = parts.typed(".weight", Dtype::F8_E4M3)?;
    let scale = match parts.find(".weight_scale_inv") {
        Some(scale) => scale,
        None => parts.part(".weight_scale")?,
    };
    open(weight, scale, options.block)
}

/// The rows and columns of a matrix of `shape` that share a scale, given the shape of the scales:
/// one number is for the whole matrix, a column for rows, a matrix for blocks of `block`.
fn blocks(shape: [usize; 2], scales: &[usize], block: Option<[usize; 2]>) -> Option<[usize; 2]> {
    let [rows, cols] = shape;
    match (scales, block) {
        ([] | [1] | [1, 1], None) => Some([rows.max(1), cols.max(1)]),
        ([one] | [one, 1], None) if *one == rows => Some([1, cols.max(1)]),
        ([down, across], Some([high, wide])) => {
            let fits = *down == rows.div_ceil(high) && *across == cols.div_ceil(wide);
            fits.then_some([high, wide])
        }
        _ => None,
    }
}

pub(super) fn open<'a>(
    weight: StoredPart<'a>,
    scale: StoredPart<'a>,
    block: Option<[usize; 2]>,
) -> Result<PackedMatrix<'a>, ModelError> {
    let shape = weight.matrix()?;
    let block = blocks(shape, scale.shape, block).ok_or_else(|| {
        scale.bad(match block {
            None => format!(
                "it has the shape {:?}: neither one scale nor one for each of {} rows",
                scale.shape, shape[0]
            ),
            Some(block) => format!(
                "it has the shape {:?}, and not one scale for each block of {block:?} in {shape:?}",
                scale.shape
            ),
        })
    })?;
    let is_fp8 = weight.dtype == Dtype::F8_E4M3;
    let format = move || match is_fp8 {
        true => fitting(BlockFormat::E4m3x64, shape[1], block[1]),
        false => fitting(BlockFormat::U8x64, shape[1], block[1]),
    };
    Ok(PackedMatrix::of_codes(shape, format, move || {
        Ok(Scaled {
            cols: shape[1],
            block,
            scales: scales(&scale)?,
            is_fp8,
            codes: weight.bytes,
        })
    }))
}

/// The scales, which are stored as floats or as powers of two (e8m0).
fn scales(part: &StoredPart) -> Result<Vec<f32>, ModelError> {
    if part.dtype != Dtype::F8_E8M0 {
        return part.floats();
    }
    match part.bytes.iter().position(|byte| *byte == 255) {
        Some(i) => Err(part.bad(format!("number {i} is NaN: download the file again"))),
        None => Ok(part.bytes.iter().map(|byte| e8m0_to_f32(*byte)).collect()),
    }
}

struct Scaled<'a> {
    cols: usize,
    /// Rows and columns that share a scale.
    block: [usize; 2],
    scales: Vec<f32>,
    is_fp8: bool,
    codes: &'a [u8],
}

/// The code of 0 where integers are read as codes around it.
const MIDDLE: u8 = 128;

impl Codes for Scaled<'_> {
    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        out.copy_from_slice(&self.codes[rows.start * self.cols..rows.end * self.cols]);
        if !self.is_fp8 {
            // From -128, 0 to 127 to 0, 128 to 255.
            out.iter_mut().for_each(|code| *code ^= MIDDLE);
        }
    }

    fn group(&self, row: usize, col: usize) -> (f32, i32) {
        let [high, wide] = self.block;
        let scale = self.scales[row / high * self.cols.div_ceil(wide) + col / wide];
        (scale, MIDDLE.into())
    }

    fn number(&self, code: u8, (scale, zero): (f32, i32)) -> f32 {
        match self.is_fp8 {
            true => e4m3_to_f32(code) * scale,
            false => scale * (i32::from(code) - zero) as f32,
        }
    }
}
