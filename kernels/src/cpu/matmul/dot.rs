//! Products as dot products of contiguous rows: the portable path, and that of few rows.
//!
//! Two sums a pair of rows: the products modulo 2^32, and the products of the upper digits. The
//! second times 2^16 stays within 2^31 of the true sum over [`BLOCK`] elements, so the first tells
//! the rest: `sum = high * 2^16 + i32(low - high * 2^16)`.

use std::borrow::Cow;

use super::task::{self, First, GemmTask, TaskOutput, Tasks};
use crate::coded::{Operand, Precision};
use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::math::pow2_f64;

/// Depth over which both sums are exact. `q = 256 h + l` with `|h| <= 127` and `|l| <= 128`, so
/// `|qa qb - 2^16 ha hb| <= 256 * 2 * 127 * 128 + 128 * 128 = 8,339,456`, and 256 of them stay
/// below 2^31. With an 8-bit side, `|qa qb| <= 127 * 32,639`, and 512 of them do.
const BLOCK: usize = 256;

/// The product, see [`super::matmul`].
pub(super) fn matmul(
    isa: Isa,
    cpu: Option<&Cpu>,
    a: &Operand<'_>,
    b: &Operand<'_>,
    output: TaskOutput<'_>,
) {
    let (a, b) = (Rows::new(a), Rows::new(b));
    let work = task::work(a.rows, b.rows, a.depth);
    task::run(
        cpu,
        (First::Columns, Tasks::Many),
        (a.rows, 4),
        (b.rows, 4),
        work,
        |task| dot_task(isa, &a, &b, &task, &output),
    );
}

/// An operand whose rows are contiguous.
struct Rows<'a> {
    q: Cow<'a, [i16]>,
    stride: usize,
    rows: usize,
    depth: usize,
    exp: &'a [i32],
    is_byte: bool,
}

impl<'a> Rows<'a> {
    fn new(operand: &Operand<'a>) -> Self {
        let Operand {
            q,
            rows,
            depth,
            row_stride,
            depth_stride,
            exp,
            precision,
        } = *operand;
        let is_byte = precision == Precision::I8;
        if depth_stride == 1 || rows * depth == 0 {
            return Self {
                q: Cow::Borrowed(q),
                stride: row_stride,
                rows,
                depth,
                exp,
                is_byte,
            };
        }
        let mut copy = Vec::with_capacity(rows * depth);
        for r in 0..rows {
            copy.extend((0..depth).map(|k| q[r * row_stride + k * depth_stride]));
        }
        Self {
            q: Cow::Owned(copy),
            stride: depth,
            rows,
            depth,
            exp,
            is_byte,
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &[i16] {
        if self.depth == 0 {
            &[]
        } else {
            &self.q[row * self.stride..][..self.depth]
        }
    }

    #[inline(always)]
    fn scale(&self, row: usize) -> f64 {
        self.exp.get(row).map_or(1.0, |&e| pow2_f64(e))
    }
}

per_isa! {
    fn dot_task(a: &Rows<'_>, b: &Rows<'_>, task: &GemmTask, output: &TaskOutput<'_>) = task_body
}

#[inline(always)]
fn task_body(a: &Rows<'_>, b: &Rows<'_>, task: &GemmTask, output: &TaskOutput<'_>) {
    for n in task.cols.clone() {
        for m in task.rows.clone() {
            let sum = if a.is_byte || b.is_byte {
                narrow_sum(a.row(m), b.row(n))
            } else {
                wide_sum(a.row(m), b.row(n))
            };
            // SAFETY: tasks do not overlap, and this one writes the element now.
            let element = unsafe { output.row(m, n, 1) };
            element[0] = (sum as f64 * a.scale(m) * b.scale(n)) as f32;
        }
    }
}

/// The sum of products where one side has 8 bits.
#[inline(always)]
fn narrow_sum(a: &[i16], b: &[i16]) -> i64 {
    a.chunks(BLOCK)
        .zip(b.chunks(BLOCK))
        .map(|(a, b)| i64::from(dot(a, b, |q| q)))
        .sum()
}

/// The sum of products of any codes.
#[inline(always)]
fn wide_sum(a: &[i16], b: &[i16]) -> i64 {
    let block = |(a, b): (&[i16], &[i16])| {
        let high = dot(a, b, |q| q.wrapping_add(128) >> 8);
        let rest = dot(a, b, |q| q).wrapping_sub(high << 16);
        (i64::from(high) << 16) + i64::from(rest)
    };
    a.chunks(BLOCK).zip(b.chunks(BLOCK)).map(block).sum()
}

/// The sum of products of digits, modulo 2^32.
#[inline(always)]
fn dot(a: &[i16], b: &[i16], digit: impl Fn(i16) -> i16) -> i32 {
    let product = |(&a, &b): (&i16, &i16)| i32::from(digit(a)).wrapping_mul(i32::from(digit(b)));
    a.iter().zip(b).map(product).fold(0, i32::wrapping_add)
}
