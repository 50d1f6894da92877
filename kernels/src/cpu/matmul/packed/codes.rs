//! Blocks to codes by portable code, compiled for each instruction set.

use std::ops::Range;

use crate::isa::Isa;
use crate::packed::{BlockFormat, PackedRows};
use crate::reference::code::{EMPTY, POISON, codes_at};

/// Numbers that are decoded at a time, in the first cache: whole blocks of every format.
const RUN: usize = 2_048;

/// A row of some blocks.
struct Blocks<'a> {
    format: BlockFormat,
    bytes: &'a [u8],
    exp: i32,
    /// `2^-exp`, where f32 has it.
    factor: Option<f32>,
}

/// The codes of the numbers `cols` of a row, which are whole blocks.
pub(super) fn portable_codes(
    isa: Isa,
    w: &PackedRows,
    row: usize,
    cols: &Range<usize>,
    q: &mut [i16],
) {
    let (format, exp) = (w.format(), w.exp()[row]);
    if exp == EMPTY || exp == POISON {
        q.fill(0);
        return;
    }
    let at = |col: usize| row * w.row_bytes() + col / format.elements() * format.bytes();
    let blocks = Blocks {
        format,
        bytes: &w.bytes()[at(cols.start)..at(cols.end)],
        exp,
        factor: w.factor(row),
    };
    codes_of(isa, &blocks, q);
}

per_isa! {
    fn codes_of(blocks: &Blocks<'_>, q: &mut [i16]) = codes_body
}

#[inline(always)]
fn codes_body(blocks: &Blocks<'_>, q: &mut [i16]) {
    /// Added to a number below 2^15, it leaves the nearest integer in the low 16 bits.
    const ROUNDER: f32 = 12_582_912.0;
    let format = blocks.format;
    let mut values = [0.0; RUN];
    let runs = blocks
        .bytes
        .chunks(RUN / format.elements() * format.bytes());
    for (run, q) in runs.zip(q.chunks_mut(RUN)) {
        let values = &mut values[..q.len()];
        format.decode(run, values);
        match blocks.factor {
            Some(factor) => values
                .iter()
                .zip(q)
                .for_each(|(&v, q)| *q = (v * factor + ROUNDER).to_bits() as i16),
            None => q.copy_from_slice(&codes_at(values, values.len(), &[blocks.exp])),
        }
    }
}
