//! Coding of columns: finds the maxima row by row, and stores the codes transposed.

use rayon::prelude::*;

use super::scale::{Folds, exponent, is_ordinary, plain_scale};
use super::transpose::{SIDE, Tile, store_transposed};
use super::{PARALLEL_ELEMENTS, folded_row, largest_bits, plain_row, round};
use crate::coded::{Coded, Precision};
use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::reference::code::EMPTY;

/// Columns that are coded together: four cache lines of a row.
const BLOCK: usize = 64;

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
    let (mut q, mut exp) = (vec![0; rows * cols], vec![EMPTY; cols]);
    if rows > 0 && cols > 0 {
        let folds = fold.map(|f| Folds::new(&f[..rows]));
        let matrix = Matrix {
            x: &x[..rows * cols],
            cols,
            folds: folds.as_ref(),
            isa: cpu.isa(),
        };
        fill_cols(cpu, &matrix, precision, &mut q, &mut exp);
    }
    Coded {
        rows: cols,
        cols: rows,
        precision,
        q: q.into(),
        exp: exp.into(),
    }
}

/// Codes every column of `matrix`.
fn fill_cols(cpu: &Cpu, matrix: &Matrix<'_>, precision: Precision, q: &mut [i16], exp: &mut [i32]) {
    let rows = matrix.rows();
    let code = |(block, (q, exp)): (usize, (&mut [i16], &mut [i32]))| {
        code_block(cpu.isa(), matrix, block * BLOCK, precision, q, exp);
    };
    if cpu.threads() == 1 || matrix.x.len() < PARALLEL_ELEMENTS {
        let blocks = q.chunks_mut(BLOCK * rows).zip(exp.chunks_mut(BLOCK));
        blocks.enumerate().for_each(code);
        return;
    }
    cpu.pool().install(|| {
        let blocks = q
            .par_chunks_mut(BLOCK * rows)
            .zip(exp.par_chunks_mut(BLOCK));
        blocks.enumerate().for_each(code);
    });
}

/// What is coded: `x` by rows of `cols`, row i times the power of two i.
struct Matrix<'a> {
    x: &'a [f32],
    cols: usize,
    folds: Option<&'a Folds>,
    isa: Isa,
}

impl Matrix<'_> {
    fn rows(&self) -> usize {
        self.x.len() / self.cols
    }

    /// Gives `take` each column of a block and its element in row `r`, folded in f32; zeros past
    /// the end. The elements stay in registers: as an array they would be copied.
    #[inline(always)]
    fn folded(&self, r: usize, first: usize, mut take: impl FnMut(usize, f32)) {
        let row = &self.x[r * self.cols + first..(r + 1) * self.cols];
        // A product with 1 has the same bits.
        let narrow = self.folds.and_then(|f| f.narrow.as_ref());
        let fold = narrow.map_or(1.0, |narrow| narrow[r]);
        match row.first_chunk::<BLOCK>() {
            Some(row) => (0..BLOCK).for_each(|c| take(c, row[c] * fold)),
            None => (0..BLOCK).for_each(|c| take(c, row.get(c).map_or(0.0, |v| v * fold))),
        }
    }
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
    let rows = matrix.rows();
    let mut scales = [0.0; BLOCK];
    let mut is_done = [false; BLOCK];
    if matrix.folds.is_none_or(|f| f.narrow.is_some()) {
        let largest = column_maxima(matrix, first);
        for (c, exp) in exp.iter_mut().enumerate() {
            *exp = exponent(f64::from(f32::from_bits(largest[c])), precision);
            let scale = plain_scale(*exp).filter(|_| is_ordinary(largest[c]));
            is_done[c] = scale.is_some();
            scales[c] = scale.unwrap_or(0.0);
        }
        code_transposed(matrix, first, &scales, q);
    }
    let mut column = Vec::new();
    for (c, exp) in exp.iter_mut().enumerate().filter(|&(c, _)| !is_done[c]) {
        column.clear();
        column.extend((0..rows).map(|r| matrix.x[r * matrix.cols + first + c]));
        let q = &mut q[c * rows..(c + 1) * rows];
        *exp = match matrix.folds {
            None => plain_row(&column, precision, q),
            Some(folds) => folded_row(&column, folds, precision, q),
        };
    }
}

/// The bits of the largest magnitude of each folded column, as f32 products.
#[inline(always)]
fn column_maxima(matrix: &Matrix<'_>, first: usize) -> [u32; BLOCK] {
    let mut largest = [0i32; BLOCK];
    for r in 0..matrix.rows() {
        matrix.folded(r, first, |c, v| {
            largest[c] = largest[c].max(largest_bits([v].into_iter()) as i32);
        });
    }
    largest.map(|m| m as u32)
}

/// Codes a block in f32 and writes it column by column, as many columns as `q` has.
#[inline(always)]
fn code_transposed(matrix: &Matrix<'_>, first: usize, scales: &[f32; BLOCK], q: &mut [i16]) {
    let rows = matrix.rows();
    let mut tiles = [Tile::ZERO; BLOCK / SIDE];
    for top in (0..rows).step_by(SIDE) {
        let tall = SIDE.min(rows - top);
        for r in 0..tall {
            let mut codes = [0; BLOCK];
            matrix.folded(top + r, first, |c, v| codes[c] = round(v * scales[c]));
            for (tile, codes) in tiles.iter_mut().zip(codes.as_chunks().0) {
                tile.0[r] = *codes;
            }
        }
        for (tile, q) in tiles.iter().zip(q.chunks_mut(SIDE * rows)) {
            store_transposed(matrix.isa, tile, tall, rows, top, q);
        }
    }
}
