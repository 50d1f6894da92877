//! Coding of columns: maxima go down the rows, codes leave transposed.

use rayon::prelude::*;

use super::scale::{Folds, exponent, is_ordinary, plain_scale};
use super::{PARALLEL_ELEMENTS, largest_bits, plain_row, round};
use crate::coded::{Coded, Precision};
use crate::cpu::Cpu;

/// Columns that are coded together: two cache lines of a row.
const BLOCK: usize = 32;

/// Codes each *column* of `x` (`rows` by `cols`), row i first multiplied by `2^fold[i]` (exactly).
/// The result is transposed: its row c is column c of `x`.
///
/// # Panics
/// Where `fold` is shorter than a column.
pub fn code_cols(
    cpu: &Cpu,
    x: &[f32],
    cols: usize,
    fold: Option<&[i32]>,
    precision: Precision,
) -> Coded {
    let rows = x.len().checked_div(cols).unwrap_or(0);
    let mut coded = Coded {
        rows: cols,
        cols: rows,
        precision,
        q: vec![0; rows * cols],
        exp: vec![0; cols],
    };
    if rows == 0 || cols == 0 {
        return coded;
    }
    let folds = fold.map(|f| Folds::new(&f[..rows]));
    let matrix = Matrix {
        x: &x[..rows * cols],
        cols,
        folds: folds.as_ref(),
    };
    let code = |(block, (q, exp)): (usize, (&mut [i16], &mut [i32]))| {
        code_block(cpu.isa(), &matrix, block * BLOCK, precision, q, exp);
    };
    if cpu.threads() == 1 || x.len() < PARALLEL_ELEMENTS {
        let blocks = coded
            .q
            .chunks_mut(BLOCK * rows)
            .zip(coded.exp.chunks_mut(BLOCK));
        blocks.enumerate().for_each(code);
        return coded;
    }
    cpu.pool().install(|| {
        let blocks = coded
            .q
            .par_chunks_mut(BLOCK * rows)
            .zip(coded.exp.par_chunks_mut(BLOCK));
        blocks.enumerate().for_each(code);
    });
    coded
}

/// What is coded: `x` by rows of `cols`, row i times the power of two i.
struct Matrix<'a> {
    x: &'a [f32],
    cols: usize,
    folds: Option<&'a Folds>,
}

per_isa! {
    fn code_block(
        matrix: &Matrix<'_>, first: usize, precision: Precision, q: &mut [i16], exp: &mut [i32],
    ) = block_body
}

/// Codes the columns from `first` on, as many as `exp` has.
#[inline(always)]
fn block_body(
    matrix: &Matrix<'_>,
    first: usize,
    precision: Precision,
    q: &mut [i16],
    exp: &mut [i32],
) {
    let rows = matrix.x.len() / matrix.cols;
    let is_plain = exp.len() == BLOCK && matrix.folds.is_none_or(|f| f.narrow.is_some());
    let mut scales = [0.0; BLOCK];
    let mut exact = [false; BLOCK];
    if is_plain {
        let largest = column_maxima(matrix, first);
        for c in 0..BLOCK {
            exp[c] = exponent(f64::from(f32::from_bits(largest[c])), precision);
            let scale = plain_scale(exp[c]).filter(|_| is_ordinary(largest[c]));
            exact[c] = scale.is_some();
            scales[c] = scale.unwrap_or(0.0);
        }
        transpose_codes(matrix, first, &scales, q);
    }
    let mut column = Vec::new();
    for c in (0..exp.len()).filter(|&c| !exact[c]) {
        column.clear();
        column.extend((0..rows).map(|r| matrix.x[r * matrix.cols + first + c]));
        let q = &mut q[c * rows..(c + 1) * rows];
        exp[c] = match matrix.folds {
            None => plain_row(&column, precision, q),
            Some(folds) => super::folded_row(&column, folds, precision, q),
        };
    }
}

/// The bits of the largest magnitude of each folded column, as f32 products.
#[inline(always)]
fn column_maxima(matrix: &Matrix<'_>, first: usize) -> [u32; BLOCK] {
    let mut largest = [0i32; BLOCK];
    for (r, row) in matrix.x.chunks_exact(matrix.cols).enumerate() {
        let fold = narrow_fold(matrix, r);
        for (m, &v) in largest.iter_mut().zip(&row[first..first + BLOCK]) {
            *m = (*m).max(largest_bits([v * fold].into_iter()) as i32);
        }
    }
    largest.map(|m| m as u32)
}

/// Codes a full block in f32 and writes it column by column.
#[inline(always)]
fn transpose_codes(matrix: &Matrix<'_>, first: usize, scales: &[f32; BLOCK], q: &mut [i16]) {
    const TALL: usize = 32;
    let rows = matrix.x.len() / matrix.cols;
    let mut tile = [[0i16; BLOCK]; TALL];
    for top in (0..rows).step_by(TALL) {
        let tall = TALL.min(rows - top);
        for (r, codes) in tile.iter_mut().enumerate().take(tall) {
            let fold = narrow_fold(matrix, top + r);
            let row = &matrix.x[(top + r) * matrix.cols + first..][..BLOCK];
            for ((code, &v), &scale) in codes.iter_mut().zip(row).zip(scales) {
                *code = round(v * fold * scale);
            }
        }
        for c in 0..BLOCK {
            for (code, row) in q[c * rows + top..][..tall].iter_mut().zip(&tile) {
                *code = row[c];
            }
        }
    }
}

/// The power of two of a row in f32, 1 where none is folded.
#[inline(always)]
fn narrow_fold(matrix: &Matrix<'_>, row: usize) -> f32 {
    matrix
        .folds
        .and_then(|f| f.narrow.as_ref())
        .map_or(1.0, |narrow| narrow[row])
}
