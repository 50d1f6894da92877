//! The exponents of rows of packed weights.

use rayon::prelude::*;

use super::largest_bits;
use super::scale::exponent;
use crate::coded::Precision;
use crate::cpu::Cpu;
use crate::packed::BlockFormat;
use crate::reference::code::POISON;

/// Numbers that are decoded at a time, in the first cache: whole blocks of every format.
const RUN: usize = 2_048;

/// The exponents of rows of `cols` numbers, see [`crate::packed::PackedRows::exponents`].
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
