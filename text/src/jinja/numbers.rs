//! Numbers as Python's formats spell them.

use super::fault::{Fault, Made};
use super::print::float_text;

/// Digits behind the point, and columns, that a format may ask for.
pub const WIDTH_MAX: usize = 4_096;

/// `f`, `e` or `g`, in either case.
pub fn float(value: f64, kind: char, precision: usize, keeps_zeros: bool) -> String {
    if !value.is_finite() {
        let word = float_text(value.abs());
        return if kind.is_uppercase() {
            word.to_uppercase()
        } else {
            word
        };
    }
    let value = value.abs();
    let spelt = match kind.to_ascii_lowercase() {
        'f' => format!("{value:.precision$}"),
        'e' => scientific(value, precision),
        _ => general(value, precision, keeps_zeros),
    };
    if kind.is_uppercase() {
        spelt.to_uppercase()
    } else {
        spelt
    }
}

fn scientific(value: f64, precision: usize) -> String {
    let spelt = format!("{value:.precision$e}");
    let (digits, exponent) = spelt.split_once('e').unwrap_or((&spelt, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn general(value: f64, precision: usize, keeps_zeros: bool) -> String {
    let precision = precision.max(1);
    let spelt = scientific(value, precision - 1);
    let (digits, exponent) = spelt.split_once('e').unwrap_or((&spelt, "0"));
    let power: i64 = exponent.parse().unwrap_or(0);
    let short = |digits: &str| match digits.contains('.') && !keeps_zeros {
        true => digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_string(),
        false => digits.to_string(),
    };
    if power < -4 || power >= precision as i64 {
        return format!("{}e{exponent}", short(digits));
    }
    let behind = usize::try_from(precision as i64 - 1 - power).unwrap_or(0);
    short(&format!("{value:.behind$}"))
}

/// An integer's digits without its sign, by the letter of the base.
pub fn integer(value: i128, kind: char) -> String {
    let value = value.unsigned_abs();
    match kind {
        'x' => format!("{value:x}"),
        'X' => format!("{value:X}"),
        'o' => format!("{value:o}"),
        'b' => format!("{value:b}"),
        _ => value.to_string(),
    }
}

/// `round(value, digits)`: to the nearest, and of two as near ones to the even one.
pub fn rounded(value: f64, digits: i128) -> Made<f64> {
    if !value.is_finite() {
        return Ok(value);
    }
    if digits < 0 {
        return Err(Fault::new("rounding before the point is not supported"));
    }
    let digits = usize::try_from(digits).unwrap_or(usize::MAX).min(340);
    Ok(format!("{value:.digits$}").parse().unwrap_or(value))
}
