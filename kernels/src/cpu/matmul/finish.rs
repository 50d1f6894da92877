//! From exact sums to f32: one scale, one rounding.

use super::plan::SumKind;
use super::task::TaskOutput;
use crate::math::pow2_f64;
use crate::reference::code::EMPTY;

/// Bits of a sum that its lower f32 part takes.
const LOWER_BITS: u32 = 23;

/// Rows of a panel at most, of either side.
pub(super) const WIDTH_MAX: usize = 32;

/// The powers of two of a panel's rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales {
    /// The least and the greatest exponent.
    min: i32,
    max: i32,
    /// The scales in f32, where they are normal numbers or 0.
    f32: [f32; WIDTH_MAX],
}

impl Scales {
    /// The scales of rows `[first, first + count)`; 1 where exponents were folded away.
    pub(super) fn new(exp: &[i32], first: usize, count: usize) -> Self {
        let mut scales = Self {
            min: i32::MAX,
            max: i32::MIN,
            f32: [1.0; WIDTH_MAX],
        };
        let exp = exp.get(first..).unwrap_or(&[]);
        let known = exp.len().min(count);
        for (scale, &e) in scales.f32.iter_mut().zip(&exp[..known]) {
            *scale = pow2_f64(e) as f32;
            // A row of zeros has the scale 0, which is as good as any other.
            if e != EMPTY {
                scales.min = scales.min.min(e);
                scales.max = scales.max.max(e);
            }
        }
        if known < count || scales.min > scales.max {
            scales.min = scales.min.min(0);
            scales.max = scales.max.max(0);
        }
        scales
    }

    /// Whether outputs of such rows can be finished in f32: every scale is then a normal number,
    /// and its products with integers below 2^24 are exact and finite, so one fma rounds once.
    pub(super) fn is_narrow(&self, other: &Self) -> bool {
        const EXPONENTS: std::ops::RangeInclusive<i32> = -126..=80;
        let inside = |s: &Self| EXPONENTS.contains(&s.min) && EXPONENTS.contains(&s.max);
        inside(self)
            && inside(other)
            && EXPONENTS.contains(&(self.min + other.min))
            && EXPONENTS.contains(&(self.max + other.max))
    }
}

/// The part of a tile's sums that is written, and where.
#[derive(Clone, Copy)]
pub(super) struct TileFinish<'a> {
    pub(super) output: &'a TaskOutput<'a>,
    pub(super) state: *const i32,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) col: usize,
    pub(super) cols: usize,
    pub(super) a_exp: &'a [i32],
    pub(super) b_exp: &'a [i32],
    pub(super) a_scales: &'a Scales,
    pub(super) b_scales: &'a Scales,
}

/// The exact sum of an element of a tile.
#[inline(always)]
pub(super) fn sum(kind: SumKind, low: i32, high: i32) -> i64 {
    match kind {
        SumKind::Byte => i64::from(low),
        SumKind::Wide | SumKind::Mixed => (i64::from(high) << 16) + i64::from(low & 0xffff),
    }
}

/// See [`super::micro::Micro::finish`].
///
/// # Safety
/// `state` holds a tile of `COLS` columns and at most `ROWS` rows; no other reference to the
/// outputs exists.
#[inline(always)]
pub(super) unsafe fn in_f32<const ROWS: usize, const COLS: usize>(
    kind: SumKind,
    finish: &TileFinish<'_>,
) {
    const { assert!(COLS <= WIDTH_MAX && ROWS <= WIDTH_MAX) };
    let scales: &[f32; COLS] = finish.b_scales.f32.first_chunk().expect("as many scales");
    for r in 0..finish.rows {
        let a_scale = finish.a_scales.f32[r];
        // SAFETY: the caller's promise.
        let (low, high, out) = unsafe {
            let low = &*finish.state.add(r * COLS).cast::<[i32; COLS]>();
            let high = &*finish.state.add((ROWS + r) * COLS).cast::<[i32; COLS]>();
            (
                low,
                high,
                finish.output.row(finish.row + r, finish.col, finish.cols),
            )
        };
        let value = |n: usize| {
            let upper = match kind {
                SumKind::Byte => low[n] >> LOWER_BITS,
                SumKind::Wide | SumKind::Mixed => high[n] >> (LOWER_BITS - 16),
            };
            let lower = low[n] & ((1 << LOWER_BITS) - 1);
            let scale = a_scale * scales[n];
            let upper_scale = scale * (1 << LOWER_BITS) as f32;
            (upper as f32).mul_add(upper_scale, lower as f32 * scale)
        };
        match (<&mut [f32; COLS]>::try_from(out), finish.output.added()) {
            (Ok(out), None) => (0..COLS).for_each(|n| out[n] = value(n)),
            (Ok(out), Some(factor)) => {
                (0..COLS).for_each(|n| out[n] = factor.mul_add(value(n), out[n]));
            }
            (Err(_), added) => {
                // SAFETY: as above; the first borrow has ended.
                let out = unsafe { finish.output.row(finish.row + r, finish.col, finish.cols) };
                let out = out.iter_mut().enumerate();
                out.for_each(|(n, out)| put(out, value(n), added));
            }
        }
    }
}

/// Writes a result, or adds it.
#[inline(always)]
fn put(out: &mut f32, value: f32, added: Option<f32>) {
    *out = match added {
        None => value,
        Some(factor) => factor.mul_add(value, *out),
    };
}

/// Writes a tile whose sums are given, by the reference's own steps.
///
/// # Safety
/// Nobody else holds the outputs.
pub(super) unsafe fn in_f64(finish: &TileFinish<'_>, sum: impl Fn(usize, usize) -> i64) {
    let scale = |exp: &[i32], i: usize| exp.get(i).map_or(1.0, |&e| pow2_f64(e));
    for r in 0..finish.rows {
        let a_scale = scale(finish.a_exp, finish.row + r);
        // SAFETY: the caller's promise.
        let out = unsafe { finish.output.row(finish.row + r, finish.col, finish.cols) };
        for (n, out) in out.iter_mut().enumerate() {
            let value = sum(r, n) as f64 * a_scale * scale(finish.b_exp, finish.col + n);
            put(out, value as f32, finish.output.added());
        }
    }
}
