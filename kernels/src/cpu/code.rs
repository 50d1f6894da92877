//! Row coding by SIMD and threads, with the bits of [`crate::reference::code`].
//!
//! A row whose numbers are ordinary is coded in f32: multiplying by a power of two is exact, and
//! adding `1.5 * 2^23` rounds to an integer, ties to even, whose low 16 bits are the code. Rows
//! beyond that (tiny ones, huge folded exponents) take the same steps in f64.

mod cols;
mod packed;
pub mod quantize;
mod scale;
mod transpose;

use rayon::prelude::*;

use self::scale::{Folds, code_in_f64, exponent, is_ordinary, plain_scale};
use super::Cpu;
use crate::coded::{Coded, Precision};
use crate::isa::Isa;
use crate::reference::code::POISON;

pub use self::cols::code_cols;
pub(crate) use self::packed::exponents;

/// Elements below which the calling thread does all the work: waking others costs more.
const PARALLEL_ELEMENTS: usize = 1 << 16;

/// Codes each row of `x` (`rows` by `cols`), element j first multiplied by `2^fold[j]` (exactly).
///
/// # Panics
/// Where `fold` is shorter than a row.
pub fn code_rows(
    cpu: &Cpu,
    x: &[f32],
    cols: usize,
    fold: Option<&[i32]>,
    precision: Precision,
) -> Coded {
    let rows = x.len().checked_div(cols).unwrap_or(0);
    let (mut q, mut exp) = (vec![0; rows * cols], vec![0; rows]);
    if rows > 0 {
        fill_rows(cpu, &x[..rows * cols], fold, precision, &mut q, &mut exp);
    }
    Coded {
        rows,
        cols,
        precision,
        q: q.into(),
        exp: exp.into(),
    }
}

/// Codes a row, each element first multiplied by its power of two, into `q`; gives the exponent.
/// The powers come as f32 (NaN where f32 does not hold one as a normal number) and as exponents.
///
/// # Panics
/// Where there are fewer powers than elements.
pub(crate) fn code_folded_row(
    isa: Isa,
    x: &[f32],
    (narrow, exps): (&[f32], &[i32]),
    precision: Precision,
    q: &mut [i16],
) -> i32 {
    assert!(narrow.len() >= x.len() && exps.len() >= x.len(), "folds");
    match narrow_row_of(isa, x, narrow, precision, q) {
        Some(exp) => exp,
        None => {
            let mut exp = [0];
            code_chunk(
                isa,
                x,
                Some(&Folds::new(&exps[..x.len()])),
                precision,
                q,
                &mut exp,
            );
            exp[0]
        }
    }
}

per_isa! {
    fn narrow_row_of(x: &[f32], narrow: &[f32], precision: Precision, q: &mut [i16]) -> Option<i32>
     = narrow_row
}

/// Codes as many rows as `exp` has, at least one.
fn fill_rows(
    cpu: &Cpu,
    x: &[f32],
    fold: Option<&[i32]>,
    precision: Precision,
    q: &mut [i16],
    exp: &mut [i32],
) {
    let (rows, cols) = (exp.len(), x.len() / exp.len());
    let folds = fold.map(|f| Folds::new(&f[..cols]));
    let code = |x: &[f32], q: &mut [i16], exp: &mut [i32]| {
        code_chunk(cpu.isa(), x, folds.as_ref(), precision, q, exp);
    };
    if cpu.threads() == 1 || x.len() < PARALLEL_ELEMENTS {
        return code(x, q, exp);
    }
    let step = rows.div_ceil(4 * cpu.threads());
    cpu.pool().install(|| {
        x.par_chunks(step * cols)
            .zip(q.par_chunks_mut(step * cols))
            .zip(exp.par_chunks_mut(step))
            .for_each(|((x, q), exp)| code(x, q, exp));
    });
}

per_isa! {
    fn code_chunk(
        x: &[f32], folds: Option<&Folds>, precision: Precision, q: &mut [i16], exp: &mut [i32],
    ) = chunk_body
}

#[inline(always)]
fn chunk_body(
    x: &[f32],
    folds: Option<&Folds>,
    precision: Precision,
    q: &mut [i16],
    exp: &mut [i32],
) {
    let cols = x.len() / exp.len();
    for ((x, q), exp) in x.chunks_exact(cols).zip(q.chunks_exact_mut(cols)).zip(exp) {
        *exp = match folds {
            None => plain_row(x, precision, q),
            Some(folds) => folded_row(x, folds, precision, q),
        };
    }
}

/// Codes a row and returns its exponent.
#[inline(always)]
fn plain_row(x: &[f32], precision: Precision, q: &mut [i16]) -> i32 {
    let largest = largest_bits(x.iter().copied());
    if largest >= f32::INFINITY.to_bits() {
        q.fill(0);
        return POISON;
    }
    let exp = exponent(f64::from(f32::from_bits(largest)), precision);
    match plain_scale(exp) {
        Some(scale) => x.iter().zip(q).for_each(|(&v, q)| *q = round(v * scale)),
        None => code_in_f64(x.iter().map(|&v| f64::from(v)), exp, q),
    }
    exp
}

/// Codes a row whose products with their powers of two are ordinary in f32; `None` for other rows.
#[inline(always)]
fn narrow_row(x: &[f32], narrow: &[f32], precision: Precision, q: &mut [i16]) -> Option<i32> {
    let scaled = || x.iter().zip(narrow).map(|(&v, &f)| v * f);
    let largest = largest_bits(scaled());
    if !is_ordinary(largest) {
        return None;
    }
    let exp = exponent(f64::from(f32::from_bits(largest)), precision);
    let scale = plain_scale(exp)?;
    scaled().zip(q).for_each(|(v, q)| *q = round(v * scale));
    Some(exp)
}

/// As [`plain_row`], each element multiplied by its power of two.
#[inline(always)]
fn folded_row(x: &[f32], folds: &Folds, precision: Precision, q: &mut [i16]) -> i32 {
    if let Some(narrow) = &folds.narrow
        && let Some(exp) = narrow_row(x, narrow, precision, q)
    {
        return exp;
    }
    let scaled = || x.iter().zip(&folds.wide).map(|(&v, &f)| f64::from(v) * f);
    let largest = scaled().fold(0u64, |m, v| m.max(v.to_bits() & (u64::MAX >> 1)));
    if largest >= f64::INFINITY.to_bits() {
        q.fill(0);
        return POISON;
    }
    let exp = exponent(f64::from_bits(largest), precision);
    code_in_f64(scaled(), exp, q);
    exp
}

/// The bits of the largest magnitude; those of a NaN lie above those of infinity.
#[inline(always)]
fn largest_bits(values: impl Iterator<Item = f32>) -> u32 {
    // Signed, since the sign bit is gone and SSE2 compares signed integers only.
    values.fold(0i32, |m, v| m.max((v.to_bits() & (u32::MAX >> 1)) as i32)) as u32
}

/// The nearest integer, ties to even, of a value below `2^15` in magnitude.
#[inline(always)]
fn round(value: f32) -> i16 {
    const ONE_AND_A_HALF_2_23: f32 = 12_582_912.0;
    (value + ONE_AND_A_HALF_2_23).to_bits() as i16
}
