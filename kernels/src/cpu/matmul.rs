//! Exact integer products by SIMD and threads, with the bits of [`crate::reference::matmul`].

#[cfg(target_arch = "x86_64")]
mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_dot;
#[cfg(target_arch = "x86_64")]
mod avx512_pack;
mod dot;
#[cfg(target_arch = "x86_64")]
mod driver;
#[cfg(target_arch = "x86_64")]
mod finish;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod lines;
#[cfg(target_arch = "x86_64")]
mod micro;
mod packed;
#[cfg(target_arch = "x86_64")]
mod plan;
#[cfg(target_arch = "x86_64")]
mod strip;
mod task;

#[cfg(target_arch = "x86_64")]
pub(crate) use self::avx512_pack::transpose_lanes;
pub(crate) use self::packed::{by_packed, by_packed_columns};
use self::task::TaskOutput;
use super::Cpu;
use crate::coded::Operand;
use crate::isa::Isa;

/// `out[m, n] = round_f32(2^(ea[m] + eb[n]) * sum_k qa[m, k] * qb[n, k])`, row-major, the sum
/// exact, rounded once; over no depth it is +0.
///
/// # Panics
/// Where the depths differ, `out` is not `a.rows * b.rows` long, or an operand's strides leave its
/// codes.
pub fn matmul(cpu: &Cpu, a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) {
    check_product(&a, &b, out.len());
    let output = TaskOutput::new(out, b.rows);
    // SAFETY: the operands have been checked, and the output is borrowed.
    unsafe { multiply(cpu.isa(), Some(cpu), &a, &b, output) };
}

/// As [`matmul`], into memory of its own, which is not cleared before.
///
/// # Panics
/// As [`matmul`].
pub fn product(cpu: &Cpu, a: Operand<'_>, b: Operand<'_>) -> Vec<f32> {
    let len = a.rows.checked_mul(b.rows).expect("the output has a size");
    check_product(&a, &b, len);
    let mut out = Vec::with_capacity(len);
    let output = TaskOutput::not_filled(out.spare_capacity_mut(), b.rows);
    // SAFETY: the operands have been checked. Every path writes each element of the output, and
    // reads none where nothing is added to it.
    unsafe {
        multiply(cpu.isa(), Some(cpu), &a, &b, output);
        out.set_len(len);
    }
    out
}

/// `out = fma(factor, product, out)` with the product of [`matmul`]: what an update of low rank
/// adds to a projection, without a pass of its own.
///
/// # Panics
/// As [`matmul`].
pub fn scaled_add_product(cpu: &Cpu, a: Operand<'_>, b: Operand<'_>, factor: f32, out: &mut [f32]) {
    check_product(&a, &b, out.len());
    if !adds_as_it_finishes(cpu.isa(), &a, &b) {
        let product = product(cpu, a, b);
        return super::elementwise::scaled_add_assign(cpu, out, factor, &product);
    }
    let output = TaskOutput::new(out, b.rows).scaled_add(factor);
    // SAFETY: the operands have been checked, and the output is borrowed.
    unsafe { multiply(cpu.isa(), Some(cpu), &a, &b, output) };
}

/// As [`matmul`], on the calling thread.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_serial(isa: Isa, a: Operand<'_>, b: Operand<'_>, out: &mut [f32]) {
    check_product(&a, &b, out.len());
    // SAFETY: the operands have been checked, and the output is borrowed.
    unsafe { multiply(isa, None, &a, &b, TaskOutput::new(out, b.rows)) };
}

/// The product, into the first columns of the output.
///
/// # Safety
/// The depths are equal, and the strides stay within the codes. The output has `a.rows` by `b.rows`
/// elements, which nobody else holds meanwhile.
unsafe fn multiply(
    isa: Isa,
    cpu: Option<&Cpu>,
    a: &Operand<'_>,
    b: &Operand<'_>,
    output: TaskOutput<'_>,
) {
    if a.rows == 0 || b.rows == 0 {
        return;
    }
    if a.depth == 0 {
        // SAFETY: the caller's promise.
        (0..a.rows).for_each(|row| unsafe { output.row(row, 0, b.rows).fill(0.0) });
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if isa.is_available() && multiply_by_vectors(isa, cpu, a, b, output) {
        return;
    }
    dot::matmul(isa, cpu, a, b, output);
}

/// Whether the product takes the packed path, which can add its results to what the output holds.
fn adds_as_it_finishes(isa: Isa, a: &Operand<'_>, b: &Operand<'_>) -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa.is_available()
        && isa != Isa::Portable
        && a.rows * a.depth * b.rows > 0
        && !is_few(isa, a, b);
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Whether packing B costs more than it saves.
#[cfg(target_arch = "x86_64")]
fn is_few(isa: Isa, a: &Operand<'_>, b: &Operand<'_>) -> bool {
    /// Sums of so many products are integers that f64 holds.
    const FEW_DEPTH: usize = 1 << 22;
    a.rows <= few_rows(isa, a, b) && a.depth <= FEW_DEPTH && b.depth_stride == 1
}

/// Whether the product was one for the paths written for an instruction set, which the machine has.
#[cfg(target_arch = "x86_64")]
fn multiply_by_vectors(
    isa: Isa,
    cpu: Option<&Cpu>,
    a: &Operand<'_>,
    b: &Operand<'_>,
    output: TaskOutput<'_>,
) -> bool {
    let is_few = is_few(isa, a, b);
    match isa {
        // SAFETY: the machine has the instruction set; `check` has seen the strides and the output.
        Isa::Avx512 if is_few => unsafe { avx512_dot::matmul(cpu, a, b, output) },
        // SAFETY: as above.
        Isa::Avx512 => unsafe { driver::matmul::<avx512::Avx512>(cpu, a, b, output) },
        // SAFETY: as above.
        Isa::Avx2 if !is_few => unsafe { driver::matmul::<avx2::Avx2>(cpu, a, b, output) },
        Isa::Avx2 | Isa::Portable => return false,
    }
    true
}

/// Rows of A up to which packing B costs more than it saves.
#[cfg(target_arch = "x86_64")]
fn few_rows(isa: Isa, a: &Operand<'_>, b: &Operand<'_>) -> usize {
    /// Rows with AVX2.
    const AVX2: usize = 4;
    /// Rows with AVX-512, where B cannot be read ahead or is short.
    const NOT_AHEAD: usize = 28;
    const SHORT: usize = 64;
    match isa {
        Isa::Avx2 | Isa::Portable => AVX2,
        Isa::Avx512 if b.rows < SHORT || !ahead::Ahead::is_possible(b) => NOT_AHEAD,
        // As many as stay in the first cache, within what was measured for any depth.
        Isa::Avx512 if plan::SumKind::new(a.precision, b.precision) == plan::SumKind::Wide => {
            ((13 << 10) / a.depth).clamp(7, 14)
        }
        Isa::Avx512 => ((20 << 10) / a.depth).clamp(14, 24),
    }
}

fn check_product(a: &Operand<'_>, b: &Operand<'_>, len: usize) {
    assert_eq!(a.depth, b.depth, "the summed axes differ");
    assert_eq!(Some(len), a.rows.checked_mul(b.rows), "the output's size");
    check(a);
    check(b);
}

fn check(operand: &Operand<'_>) {
    let span = |count: usize, stride: usize| count.saturating_sub(1).checked_mul(stride);
    let last = span(operand.rows, operand.row_stride)
        .zip(span(operand.depth, operand.depth_stride))
        .and_then(|(row, depth)| row.checked_add(depth));
    let is_empty = operand.rows == 0 || operand.depth == 0;
    let is_inside = last.is_some_and(|last| last < operand.q.len());
    assert!(
        is_empty || is_inside,
        "the strides of {} rows leave the codes",
        operand.rows
    );
}
