//! Products with a matrix that stays packed: its blocks become codes where they are multiplied.
//!
//! For few rows of A and the formats that have a decoder in registers, nothing else is written.
//! Otherwise strips of the matrix become codes in a cache, and are multiplied as any codes.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod blocks;
mod codes;
#[cfg(target_arch = "x86_64")]
mod rows;

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::task::{self, First, TaskOutput, Tasks};
use super::{check, multiply};
use crate::coded::Operand;
use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::packed::PackedRows;

/// Rows of A up to which each thread decodes strips for itself, and multiplies them at once.
const FEW_ROWS: usize = 28;
/// Bytes of the codes of such a strip: part of a second cache.
const SMALL_STRIP: usize = 256 << 10;
/// Bytes of the codes that all threads decode together.
const LARGE_STRIP: usize = 4 << 20;

thread_local! {
    // Taken out while in use, as a thread that waits for the pool may take up other work.
    static CODES: Cell<Vec<i16>> = const { Cell::new(Vec::new()) };
}

/// `out = a w^T`, row-major, with the bits of the product with the codes of w.
///
/// # Panics
/// Where the depths differ, `out` has another size, or the strides of `a` leave its codes.
pub(crate) fn by_packed(cpu: &Cpu, a: Operand<'_>, w: &PackedRows, out: &mut [f32]) {
    check_sizes(&a, w.cols(), w.rows(), out);
    if out.is_empty() || a.depth == 0 {
        out.fill(0.0);
        return;
    }
    let output = TaskOutput::new(out, w.rows());
    #[cfg(target_arch = "x86_64")]
    if avx512::matmul(cpu, &a, w, output) {
        return;
    }
    if a.rows <= FEW_ROWS {
        by_small_strips(cpu, &a, w, output);
    } else {
        by_large_strips(cpu, &a, w, output);
    }
}

/// As [`by_packed`], summed over the rows of w, whose exponents must have been folded into `a`:
/// `out = a w`.
///
/// # Panics
/// As [`by_packed`].
pub(crate) fn by_packed_columns(cpu: &Cpu, a: Operand<'_>, w: &PackedRows, out: &mut [f32]) {
    /// Columns of a strip at least, for a vector of each row.
    const COLUMNS: usize = 32;
    check_sizes(&a, w.rows(), w.cols(), out);
    if out.is_empty() || a.depth == 0 {
        out.fill(0.0);
        return;
    }
    let output = TaskOutput::new(out, w.cols());
    let unit = w.format().elements().max(COLUMNS);
    let at_once = (LARGE_STRIP / size_of::<i16>() / w.rows()).max(unit) / unit * unit;
    let mut codes = CODES.take();
    for cols in parts(0..w.cols(), at_once) {
        let width = cols.len();
        let q = scratch(&mut codes, w.rows() * width);
        decode(cpu, w, 0..w.rows(), &cols, q);
        let strip = Operand {
            q,
            rows: width,
            depth: w.rows(),
            row_stride: 1,
            depth_stride: width,
            exp: &[],
            precision: w.precision(),
        };
        // SAFETY: one strip at a time.
        unsafe {
            multiply(
                cpu.isa(),
                Some(cpu),
                &a,
                &strip,
                output.columns_from(cols.start),
            )
        };
    }
    CODES.set(codes);
}

fn check_sizes(a: &Operand<'_>, depth: usize, cols: usize, out: &[f32]) {
    assert_eq!(a.depth, depth, "the summed axes differ");
    assert_eq!(
        Some(out.len()),
        a.rows.checked_mul(cols),
        "the output's size"
    );
    check(a);
}

/// Each thread decodes some rows of w at a time, and multiplies them.
fn by_small_strips(cpu: &Cpu, a: &Operand<'_>, w: &PackedRows, output: TaskOutput<'_>) {
    /// Rows of w that are together in a task.
    const UNIT: usize = 4;
    let at_once = (SMALL_STRIP / size_of::<i16>() / w.cols()).max(UNIT);
    let work = task::work(a.rows, w.rows(), a.depth);
    task::run(
        Some(cpu),
        (First::Columns, Tasks::Many),
        (a.rows, a.rows),
        (w.rows(), UNIT),
        work,
        |task| {
            let mut codes = CODES.take();
            for rows in parts(task.cols, at_once) {
                let q = scratch(&mut codes, rows.len() * w.cols());
                for (row, q) in rows.clone().zip(q.chunks_mut(w.cols())) {
                    codes_of(cpu.isa(), w, row, &(0..w.cols()), q);
                }
                let strip = strip(w, &rows, q);
                let output = output.columns_from(rows.start);
                // SAFETY: tasks do not overlap; this one has all rows of A.
                unsafe { multiply(cpu.isa(), None, a, &strip, output) };
            }
            CODES.set(codes);
        },
    );
}

/// All threads decode some rows of w, and multiply them.
fn by_large_strips(cpu: &Cpu, a: &Operand<'_>, w: &PackedRows, output: TaskOutput<'_>) {
    /// Rows of w that fill the tiles of every instruction set.
    const UNIT: usize = 32;
    let at_once = (LARGE_STRIP / size_of::<i16>() / w.cols()).max(UNIT) / UNIT * UNIT;
    let mut codes = CODES.take();
    for rows in parts(0..w.rows(), at_once) {
        let q = scratch(&mut codes, rows.len() * w.cols());
        decode(cpu, w, rows.clone(), &(0..w.cols()), q);
        let strip = strip(w, &rows, q);
        // SAFETY: one strip at a time.
        unsafe {
            multiply(
                cpu.isa(),
                Some(cpu),
                a,
                &strip,
                output.columns_from(rows.start),
            )
        };
    }
    CODES.set(codes);
}

/// Some rows of w as codes.
fn strip<'a>(w: &'a PackedRows, rows: &Range<usize>, q: &'a [i16]) -> Operand<'a> {
    Operand {
        q,
        rows: rows.len(),
        depth: w.cols(),
        row_stride: w.cols(),
        depth_stride: 1,
        exp: &w.exp()[rows.clone()],
        precision: w.precision(),
    }
}

/// The codes of `rows` by `cols`, which are whole blocks, by all threads.
fn decode(cpu: &Cpu, w: &PackedRows, rows: Range<usize>, cols: &Range<usize>, q: &mut [i16]) {
    cpu.pool().install(|| {
        rows.into_par_iter()
            .zip(q.par_chunks_mut(cols.len()))
            .with_min_len(cpu.rows_per_task(cols.len()))
            .for_each(|(row, q)| codes_of(cpu.isa(), w, row, cols, q));
    });
}

/// The codes of the numbers `cols` of a row, which are whole blocks.
fn codes_of(isa: Isa, w: &PackedRows, row: usize, cols: &Range<usize>, q: &mut [i16]) {
    #[cfg(target_arch = "x86_64")]
    if avx512::codes(isa, w, row, cols, q) {
        return;
    }
    codes::portable_codes(isa, w, row, cols, q);
}

/// The first `len` elements of a buffer, which grows to hold them and is not cleared.
fn scratch(codes: &mut Vec<i16>, len: usize) -> &mut [i16] {
    if codes.len() < len {
        codes.resize(len, 0);
    }
    &mut codes[..len]
}

/// A range in parts of at most `most`.
fn parts(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(most)
        .map(move |start| start..end.min(start + most))
}
