//! Blocks of packed weights to the codes of their rows, and the exponents of rows.

use std::ops::Range;

use rayon::prelude::*;

use super::scale::{code_in_f64, exponent, plain_scale};
use super::{largest_bits, round};
use crate::coded::Precision;
use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::packed::{BlockFormat, PackedRows};
use crate::reference::code::{EMPTY, POISON};

/// Numbers that are decoded at a time, in the first cache: whole blocks of every format.
const RUN: usize = 2_048;

/// The exponents of rows of `cols` numbers, see [`PackedRows::exponents`].
///
/// # Panics
/// Where a row is no whole number of blocks, or empty.
pub(crate) fn exponents(
    cpu: &Cpu,
    format: BlockFormat,
    cols: usize,
    bytes: &[u8],
    precision: Precision,
    exps: &mut [i32],
) {
    let width = format.row_bytes(cols).expect("a row is whole blocks");
    let isa = cpu.isa();
    cpu.pool().install(|| {
        exps.par_iter_mut()
            .zip(bytes.par_chunks_exact(width))
            .with_min_len(cpu.rows_per_task(cols))
            .for_each(|(exp, row)| *exp = row_exponent(isa, format, row, precision));
    });
}

per_isa! {
    fn row_exponent(format: BlockFormat, row: &[u8], precision: Precision) -> i32 = exponent_body
}

#[inline(always)]
fn exponent_body(format: BlockFormat, row: &[u8], precision: Precision) -> i32 {
    let mut values = [0.0; RUN];
    let mut largest = 0;
    for run in row.chunks(RUN / format.elements() * format.bytes()) {
        let values = &mut values[..run.len() / format.bytes() * format.elements()];
        format.decode(run, values);
        largest = largest.max(largest_bits(values.iter().copied()));
    }
    if largest >= f32::INFINITY.to_bits() {
        return POISON;
    }
    exponent(f64::from(f32::from_bits(largest)), precision)
}

/// The codes of the numbers `cols` of a row, which are whole blocks, by portable code that is
/// compiled for each instruction set.
pub(crate) fn packed_codes(
    isa: Isa,
    w: &PackedRows,
    row: usize,
    cols: Range<usize>,
    q: &mut [i16],
) {
    let format = w.format();
    let at = |col: usize| row * w.row_bytes() + col / format.elements() * format.bytes();
    let bytes = &w.bytes()[at(cols.start)..at(cols.end)];
    codes_of(isa, format, bytes, w.exp()[row], q);
}

per_isa! {
    fn codes_of(format: BlockFormat, bytes: &[u8], exp: i32, q: &mut [i16]) = codes_body
}

#[inline(always)]
fn codes_body(format: BlockFormat, bytes: &[u8], exp: i32, q: &mut [i16]) {
    if exp == EMPTY || exp == POISON {
        q.fill(0);
        return;
    }
    let mut values = [0.0; RUN];
    let runs = bytes.chunks(RUN / format.elements() * format.bytes());
    for (run, q) in runs.zip(q.chunks_mut(RUN)) {
        let values = &mut values[..q.len()];
        format.decode(run, values);
        match plain_scale(exp) {
            Some(scale) => values
                .iter()
                .zip(q)
                .for_each(|(&v, q)| *q = round(v * scale)),
            None => code_in_f64(values.iter().map(|&v| f64::from(v)), exp, q),
        }
    }
}
