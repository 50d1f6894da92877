//! Row coding, one element at a time. The rule is that of NUMERICS.md, section 2.

use crate::coded::{Coded, Precision};
use crate::math::pow2_f64;

/// The exponent of a row that holds a NaN or an infinity: [`pow2_f64`] of it is NaN. Every product
/// with such a row is then NaN, which is found where results are checked.
pub const POISON: i32 = 1 << 20;

/// The exponent of a row of zeros: [`pow2_f64`] of it is 0. Folded into another operand, it makes
/// the elements that meet the row zeros, which are ignored when an exponent is chosen. With an
/// exponent of 0 a single empty row would push all others below the last digit.
pub const EMPTY: i32 = -(1 << 20);

/// Codes each row of `x` (`rows` by `cols`), element j first multiplied by `2^fold[j]` (exactly).
pub fn code_rows(x: &[f32], cols: usize, fold: Option<&[i32]>, precision: Precision) -> Coded {
    let rows = x.len().checked_div(cols).unwrap_or(0);
    let (mut q, mut exp) = (Vec::new(), Vec::new());
    for row in x.chunks_exact(cols.max(1)) {
        let values = row
            .iter()
            .enumerate()
            .map(|(j, &v)| scaled(v, fold.map_or(0, |f| f[j])));
        push_row(&mut q, &mut exp, values.collect(), precision);
    }
    Coded {
        rows,
        cols,
        precision,
        q: q.into(),
        exp: exp.into(),
    }
}

/// Codes each *column* of `x` (`rows` by `cols`), row i first multiplied by `2^fold[i]` (exactly).
/// The result is transposed: its row c is column c of `x`.
pub fn code_cols(x: &[f32], cols: usize, fold: Option<&[i32]>, precision: Precision) -> Coded {
    let rows = x.len().checked_div(cols).unwrap_or(0);
    let (mut q, mut exp) = (Vec::new(), Vec::new());
    for c in 0..cols {
        let values = (0..rows).map(|r| scaled(x[r * cols + c], fold.map_or(0, |f| f[r])));
        push_row(&mut q, &mut exp, values.collect(), precision);
    }
    Coded {
        rows: cols,
        cols: rows,
        precision,
        q: q.into(),
        exp: exp.into(),
    }
}

/// Codes the rows of `x` (rows by `cols`) with given exponents: those of the longer rows that these
/// are parts of.
pub fn codes_at(x: &[f32], cols: usize, exps: &[i32]) -> Vec<i16> {
    let code = |v: &f32, exp: i32| match exp {
        POISON | EMPTY => 0,
        _ => (f64::from(*v) * pow2_f64(-exp)).round_ties_even() as i16,
    };
    let rows = x.chunks_exact(cols.max(1)).zip(exps);
    rows.flat_map(|(row, &exp)| row.iter().map(move |v| code(v, exp)))
        .collect()
}

/// The exponent that [`code_rows`] gives a row.
pub fn exponent(row: &[f32], precision: Precision) -> i32 {
    let wide: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
    row_exponent(&wide, precision)
}

/// `value * 2^exp` in f64: exact for every f32 and every exponent that a row can have.
fn scaled(value: f32, exp: i32) -> f64 {
    f64::from(value) * pow2_f64(exp)
}

fn push_row(q: &mut Vec<i16>, exps: &mut Vec<i32>, values: Vec<f64>, precision: Precision) {
    let exp = row_exponent(&values, precision);
    exps.push(exp);
    let code = |v: &f64| match exp {
        POISON | EMPTY => 0,
        _ => (v * pow2_f64(-exp)).round_ties_even() as i16,
    };
    q.extend(values.iter().map(code));
}

/// The exponent that lets the largest magnitude of `values` just fit.
fn row_exponent(values: &[f64], precision: Precision) -> i32 {
    if values.iter().any(|v| !v.is_finite()) {
        return POISON;
    }
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        return EMPTY;
    }
    // floor(log2(largest)), from the bits: an f32 times a power of two is normal in f64.
    let exponent = (largest.to_bits() >> 52) as i32 - 1023;
    let limit = precision.limit();
    let exp = exponent - limit.ilog2() as i32;
    let fits = (largest * pow2_f64(-exp)).round_ties_even() <= f64::from(limit);
    if fits { exp } else { exp + 1 }
}
