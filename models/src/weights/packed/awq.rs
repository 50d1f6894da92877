//! AWQ in the order of its GEMM kernels: eight outputs in a word, interleaved.

use std::ops::Range;

use safetensors::Dtype;

use super::PackedMatrix;
use super::bits::field;
use super::codes::{Codes, integer_format};
use super::method::AwqOptions;
use super::parts::PackedParts;
use crate::error::ModelError;

const BITS: u32 = 4;
const FIELDS: usize = 8;

/// Inputs that are decoded together.
const BLOCK: usize = 16;

/// The position of each of eight outputs in its word.
const PLACES: [usize; FIELDS] = [0, 4, 1, 5, 2, 6, 3, 7];

pub(super) fn open<'a>(
    options: &AwqOptions,
    parts: PackedParts<'a>,
) -> Result<PackedMatrix<'a>, ModelError> {
    let qweight = parts.typed(".qweight", Dtype::I32)?;
    let [inputs, words] = qweight.matrix()?;
    let outputs = words.checked_mul(FIELDS);
    let outputs = outputs.ok_or_else(|| qweight.bad("its outputs cannot be counted"))?;
    let group = options.group_size.unwrap_or(inputs).max(1);
    let groups = inputs.div_ceil(group);
    let why = "qweight and group_size";
    let qzeros = parts.typed(".qzeros", Dtype::I32)?;
    let qzeros = qzeros.shaped(&[groups, words], why)?;
    let scales = parts.part(".scales")?.shaped(&[groups, outputs], why)?;
    let format = move || integer_format(BITS, inputs, group);
    Ok(PackedMatrix::of_codes(
        [outputs, inputs],
        format,
        move || {
            Ok(Awq {
                inputs,
                outputs,
                group,
                scales: scales.floats()?,
                zeros: qzeros.words(),
                words: qweight.words(),
            })
        },
    ))
}

struct Awq<'a> {
    inputs: usize,
    outputs: usize,
    group: usize,
    /// By group and output.
    scales: Vec<f32>,
    zeros: &'a [[u8; 4]],
    words: &'a [[u8; 4]],
}

impl Codes for Awq<'_> {
    fn cols(&self) -> usize {
        self.inputs
    }

    fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        let words = self.outputs / FIELDS;
        // Some inputs at a time: their words are read for every output, and the results are
        // adjacent in its row.
        for start in (0..self.inputs).step_by(BLOCK) {
            let end = self.inputs.min(start + BLOCK);
            for (i, output) in rows.clone().enumerate() {
                let (word, place) = (output / FIELDS, PLACES[output % FIELDS]);
                for input in start..end {
                    let code = field(self.words[input * words + word], BITS, place);
                    out[i * self.inputs + input] = code as u8;
                }
            }
        }
    }

    fn group(&self, row: usize, col: usize) -> (f32, i32) {
        let group = col / self.group;
        let zeros = self.zeros[group * (self.outputs / FIELDS) + row / FIELDS];
        let zero = field(zeros, BITS, PLACES[row % FIELDS]) as i32;
        (self.scales[group * self.outputs + row], zero)
    }
}
