//! GPTQ: codes packed along the inputs, `[in / codes per word, out]`; a scale and a zero point for
//! each group of inputs and each output.

use std::ops::Range;

use safetensors::Dtype;

use super::PackedMatrix;
use super::bits::field;
use super::codes::{Codes, are_in_order, integer_format};
use super::method::GptqOptions;
use super::parts::{PackedParts, StoredPart};
use crate::error::ModelError;

pub(super) fn open<'a>(
    options: &GptqOptions,
    parts: PackedParts<'a>,
) -> Result<PackedMatrix<'a>, ModelError> {
    let bits = options.bits;
    let fields = 32 / bits as usize;
    let qweight = parts.typed(".qweight", Dtype::I32)?;
    let [words, outputs] = qweight.matrix()?;
    let inputs = words * fields;
    let scales = parts.part(".scales")?;
    let [groups, _] = scales.matrix()?;
    let scales = scales.shaped(&[groups, outputs], "groups and qweight")?;
    if !outputs.is_multiple_of(fields) {
        return Err(qweight.bad(format!(
            "{outputs} outputs do not fill words of {fields} zeros of {bits} bits"
        )));
    }
    let qzeros = parts.typed(".qzeros", Dtype::I32)?;
    let qzeros = qzeros.shaped(&[groups, outputs / fields], "scales and bits")?;
    let g_idx = match parts.find(".g_idx") {
        Some(_) => Some(
            parts
                .typed(".g_idx", Dtype::I32)?
                .shaped(&[inputs], "the inputs of qweight")?,
        ),
        None => None,
    };
    let group = options.group_size.unwrap_or(inputs).max(1);
    if groups != inputs.div_ceil(group) {
        return Err(scales.bad(format!(
            "it has {groups} groups, but {inputs} inputs in groups of {group} have {}",
            inputs.div_ceil(group)
        )));
    }
    let options = *options;
    let format = move || {
        let format = integer_format(bits, inputs, group)?;
        are_in_order(g_idx, group).then_some(format)
    };
    Ok(PackedMatrix::of_codes(
        [outputs, inputs],
        format,
        move || {
            Ok(Gptq {
                bits,
                outputs,
                groups: group_of_inputs(inputs, groups, group, g_idx)?,
                scales: scales.floats()?,
                zeros: zeros(&options, &qzeros, fields)?,
                words: qweight.words(),
            })
        },
    ))
}

/// The group of each input.
fn group_of_inputs(
    inputs: usize,
    groups: usize,
    group: usize,
    g_idx: Option<StoredPart>,
) -> Result<Vec<usize>, ModelError> {
    let Some(part) = g_idx else {
        return Ok((0..inputs).map(|input| input / group).collect());
    };
    let all = part.words().iter().map(|word| i32::from_le_bytes(*word));
    all.enumerate()
        .map(|(input, index)| {
            let index = usize::try_from(index).ok().filter(|index| *index < groups);
            index.ok_or_else(|| {
                part.bad(format!(
                    "input {input} is of no group from 0 to {}",
                    groups.saturating_sub(1)
                ))
            })
        })
        .collect()
}

/// The zero point of each group and output. The first version of the format stores one less; adding
/// 1 does not wrap around, so 15 in four bits means 16.
fn zeros(options: &GptqOptions, part: &StoredPart, fields: usize) -> Result<Vec<i32>, ModelError> {
    let more = i32::from(!options.is_v2);
    let all = part
        .words()
        .iter()
        .flat_map(|word| (0..fields).map(|at| field(*word, options.bits, at) as i32 + more));
    let zeros: Vec<i32> = all.collect();
    let middle = 1 << (options.bits - 1);
    if options.is_symmetric
        && !options.is_v2
        && !zeros.is_empty()
        && zeros.iter().all(|zero| *zero == middle + 1)
    {
        return Err(part.bad(format!(
            "all its fields are {middle}, as the second version of the format writes symmetric \
             weights, but checkpoint_format says the first: set it to \"gptq_v2\" in \
             quantization_config"
        )));
    }
    Ok(zeros)
}

struct Gptq<'a> {
    bits: u32,
    outputs: usize,
    groups: Vec<usize>,
    /// Scales and zero points, by group and output.
    scales: Vec<f32>,
    zeros: Vec<i32>,
    words: &'a [[u8; 4]],
}

impl Codes for Gptq<'_> {
    fn cols(&self) -> usize {
        self.groups.len()
    }

    fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        let (inputs, fields) = (self.cols(), 32 / self.bits as usize);
        // A word of an output at a time: its codes are adjacent in the row.
        for line in 0..inputs.div_ceil(fields) {
            for (i, output) in rows.clone().enumerate() {
                let word = self.words[line * self.outputs + output];
                let out = &mut out[i * inputs + line * fields..][..fields];
                for (place, out) in out.iter_mut().enumerate() {
                    *out = field(word, self.bits, place) as u8;
                }
            }
        }
    }

    fn group(&self, row: usize, col: usize) -> (f32, i32) {
        let at = self.groups[col] * self.outputs + row;
        (self.scales[at], self.zeros[at])
    }
}
