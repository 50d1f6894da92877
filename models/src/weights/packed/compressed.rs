//! compressed-tensors: integers of a few bits packed along the rows, or FP8 or 8-bit integers, with
//! scales in tensors of their own.

use std::ops::Range;

use safetensors::Dtype;

use super::bits::dense_field;
use super::codes::{Codes, are_in_order, integer_format};
use super::method::CompressedOptions;
use super::parts::{PackedParts, StoredPart};
use super::{PackedMatrix, scaled};
use crate::error::ModelError;

pub(super) fn open<'a>(
    options: &CompressedOptions,
    parts: PackedParts<'a>,
) -> Result<PackedMatrix<'a>, ModelError> {
    if parts.find(".weight_packed").is_some() {
        return open_packed(options, parts);
    }
    let weight = match options.is_float {
        true => parts.typed(".weight", Dtype::F8_E4M3)?,
        false => parts.typed(".weight", Dtype::I8)?,
    };
    if let Some(zero) = parts.find(".weight_zero_point")
        && zero.bytes.iter().any(|byte| *byte != 0)
    {
        return Err(zero.bad(
            "numbers of eight bits with zero points are not read: take the model in the format \
             pack-quantized, or as it was before",
        ));
    }
    scaled::open(weight, parts.part(".weight_scale")?, options.block)
}

fn open_packed<'a>(
    options: &CompressedOptions,
    parts: PackedParts<'a>,
) -> Result<PackedMatrix<'a>, ModelError> {
    let bits = options.bits;
    let packed = parts.typed(".weight_packed", Dtype::I32)?;
    let stated = parts.typed(".weight_shape", Dtype::I64)?;
    let stated = stated.shaped(&[2], "two dimensions")?;
    let dims = stated.bytes.as_chunks().0.iter();
    let dims: Vec<Option<usize>> = dims
        .map(|dim| usize::try_from(i64::from_le_bytes(*dim)).ok())
        .collect();
    let &[Some(rows), Some(cols)] = dims.as_slice() else {
        return Err(stated.bad("a dimension is below 0 or too large"));
    };
    if rows == 0 || cols == 0 {
        return Err(stated.bad("a dimension is 0"));
    }
    let words = cols.checked_mul(bits as usize);
    let words = words.ok_or_else(|| stated.bad("its bits cannot be counted"))?;
    let words = words.div_ceil(32);
    let packed = packed.shaped(&[rows, words], "weight_shape and num_bits")?;
    let scale = parts.part(".weight_scale")?;
    let groups = groups(options, &scale, rows, cols)?;
    let zero = parts.find(".weight_zero_point");
    let zero = zero.map(|zero| zero_part(zero, bits, rows, groups));
    let zero = zero.transpose()?;
    let g_idx = parts.find(".weight_g_idx");
    if let Some(g_idx) = g_idx {
        g_idx.shaped(&[cols], "the inputs")?;
    }
    let group = cols.div_ceil(groups).max(1);
    let group = options.group.unwrap_or(group);
    let format = move || {
        let format = integer_format(bits, cols, group)?;
        (g_idx.is_none_or(is_unsorted) || are_in_order(g_idx, group)).then_some(format)
    };
    Ok(PackedMatrix::of_codes([rows, cols], format, move || {
        Ok(Packed {
            bits,
            cols,
            words_in_row: words,
            groups,
            group_of: group_of_inputs(cols, groups, group, g_idx)?,
            scales: scale.floats()?,
            zeros: zero.map_or_else(
                || vec![0; rows * groups],
                |zero| zeros(&zero, bits, rows, groups),
            ),
            words: packed.words(),
        })
    }))
}

/// How many groups the inputs of a row form: one, or as `group_size` divides them.
fn groups(
    options: &CompressedOptions,
    scale: &StoredPart,
    rows: usize,
    cols: usize,
) -> Result<usize, ModelError> {
    let groups = match options.group {
        Some(group) => cols.div_ceil(group),
        None => 1,
    };
    match scale.shape {
        [one] if *one == rows && groups == 1 => Ok(1),
        [high, wide] if *high == rows && *wide == groups => Ok(groups),
        // A single scale for the whole matrix is refused: there must be one for each row and group.
        other => Err(scale.bad(format!(
            "it has the shape {other:?}, and not {rows} rows of {groups} groups"
        ))),
    }
}

/// Zero points: packed along the rows, as the weights are along the columns, or, in older files,
/// one I8 each.
fn zero_part<'a>(
    part: StoredPart<'a>,
    bits: u32,
    rows: usize,
    groups: usize,
) -> Result<StoredPart<'a>, ModelError> {
    match part.dtype {
        Dtype::I32 => {
            let words = (rows * bits as usize).div_ceil(32);
            part.shaped(&[words, groups], "rows, groups and num_bits")
        }
        Dtype::I8 => part.shaped(&[rows, groups], "rows and groups"),
        other => Err(part.bad(format!("it is {other:?}, and zero points are I32 or I8"))),
    }
}

fn zeros(part: &StoredPart, bits: u32, rows: usize, groups: usize) -> Vec<i32> {
    if part.dtype == Dtype::I8 {
        return part
            .bytes
            .iter()
            .map(|byte| i32::from(*byte as i8))
            .collect();
    }
    let words = part.words();
    let mut zeros = Vec::with_capacity(rows * groups);
    for row in 0..rows {
        for group in 0..groups {
            let start = row * bits as usize;
            let at = |word: usize| {
                words
                    .get(word * groups + group)
                    .copied()
                    .unwrap_or_default()
            };
            let pair = [at(start / 32), at(start / 32 + 1)];
            zeros.push(signed(dense_field(&pair, bits, start % 32), bits));
        }
    }
    zeros
}

/// A field is stored with an offset, as the difference from the lowest number.
fn signed(field: u32, bits: u32) -> i32 {
    field as i32 - middle(bits)
}

/// The field of 0.
fn middle(bits: u32) -> i32 {
    1 << (bits - 1)
}

fn group_of_inputs(
    cols: usize,
    groups: usize,
    group: usize,
    g_idx: Option<StoredPart>,
) -> Result<Vec<usize>, ModelError> {
    let Some(part) = g_idx else {
        return Ok((0..cols).map(|col| col / group).collect());
    };
    if part.dtype != Dtype::I32 {
        return Err(part.bad(format!("it is {:?}, and must be I32", part.dtype)));
    }
    if is_unsorted(part) {
        return Ok((0..cols).map(|col| col / group).collect());
    }
    let all = part.words().iter().map(|word| i32::from_le_bytes(*word));
    let found = all.map(|index| usize::try_from(index).ok());
    found
        .map(|index| {
            index
                .filter(|index| *index < groups)
                .ok_or_else(|| part.bad(format!("an input is of none of the {groups} groups")))
        })
        .collect()
}

/// All -1 means that the inputs were not sorted.
fn is_unsorted(g_idx: StoredPart) -> bool {
    g_idx.words().iter().all(|word| *word == [0xff; 4])
}

struct Packed<'a> {
    bits: u32,
    cols: usize,
    words_in_row: usize,
    groups: usize,
    group_of: Vec<usize>,
    /// By row and group.
    scales: Vec<f32>,
    zeros: Vec<i32>,
    words: &'a [[u8; 4]],
}

impl Codes for Packed<'_> {
    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        for (row, out) in rows.zip(out.chunks_mut(self.cols)) {
            let words = &self.words[row * self.words_in_row..][..self.words_in_row];
            for (col, out) in out.iter_mut().enumerate() {
                *out = dense_field(words, self.bits, col * self.bits as usize) as u8;
            }
        }
    }

    fn group(&self, row: usize, col: usize) -> (f32, i32) {
        let at = row * self.groups + self.group_of[col];
        (self.scales[at], self.zeros[at] + middle(self.bits))
    }
}
