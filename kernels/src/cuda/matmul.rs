//! Exact integer products on a GPU, with the bits of [`crate::reference::matmul`].

mod atoms;
mod library;
mod operand;
#[cfg(all(test, feature = "emulator"))]
mod tests;
mod tiles;
mod verify;

pub use library::offer_library;
pub use tiles::ProductEngine;
pub use verify::verify;

pub(crate) use atoms::weight_gradient;

use self::operand::GpuOperand;
use self::tiles::DigitCounts;
use super::{Cuda, CudaError, Kernel, Result, Slice, arguments, code, grids};
use crate::coded::{Coded, Precision};
use crate::gpu::ProductShape;
use crate::{KernelError, Tensor};

/// Left sides that a kernel adds its product to: `LEFT_SIDES` of `matmul.cu`.
const LEFT_SIDES: usize = 3;

/// Where the results of a launch go.
#[derive(Clone, Copy)]
enum Results<'a> {
    /// Rounded, then added behind each of at most [`LEFT_SIDES`], one of which may be `out`.
    Rounded {
        out: &'a Slice<f32>,
        left: &'a [&'a Slice<f32>],
    },
    /// Added to exact sums.
    Sums(&'a Slice<i64>),
}

/// `out[m, n] = round_f32(2^(ea[m] + eb[n]) * sum_k qa[m, k] * qb[n, k])`, the sum exact; over no
/// depth it is +0.
///
/// # Panics
/// Where the depths differ, or an operand's strides leave its codes.
pub(crate) fn product(cuda: &Cuda, a: &GpuOperand, b: &GpuOperand) -> Result<Slice<f32>> {
    let out = cuda.alloc(a.rows * b.rows)?;
    if let Some(library) = cuda.library()
        && tiles::suits_a_library(cuda.arch(), shape(a, b))
    {
        let (out, left) = (&out, &[][..]);
        match library::multiply(cuda, library, a, b, Results::Rounded { out, left }) {
            // It does not do products of this size.
            Err(KernelError::Cuda(CudaError::Call { .. })) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(out.clone()),
        }
    }
    multiply(cuda, choose(cuda, a, b), a, b, &out, &[])?;
    Ok(out)
}

/// The exact sums `sum_k qa[m, k] * qb[n, k]`.
fn sums_by(
    cuda: &Cuda,
    engine: ProductEngine,
    a: &GpuOperand,
    b: &GpuOperand,
) -> Result<Slice<i64>> {
    let sums = cuda.zeros(a.rows * b.rows)?;
    if !sums.is_empty() && a.depth > 0 {
        launch(cuda, engine, a, b, Results::Sums(&sums))?;
    }
    Ok(sums)
}

/// Rounds exact sums `[a.rows, b.rows]` into `out`, each added behind `left`.
fn finish(
    cuda: &Cuda,
    sums: &Slice<i64>,
    a: &GpuOperand,
    b: &GpuOperand,
    out: &Slice<f32>,
    left: &[&Slice<f32>],
) -> Result<()> {
    if sums.is_empty() {
        return Ok(());
    }
    let arguments = arguments![
        sums,
        a.exp.as_ref(),
        b.exp.as_ref(),
        a.rows as u32,
        b.rows as u32,
        out,
        left.first().copied(),
        left.get(1).copied(),
        left.get(2).copied(),
    ];
    let (module, name) = ("matmul", "matmul_finish");
    let grid = grids::over(cuda, sums.len());
    cuda.launch(Kernel { module, name }, grid, arguments)
}

fn choose(cuda: &Cuda, a: &GpuOperand, b: &GpuOperand) -> ProductEngine {
    tiles::engine(cuda.arch(), shape(a, b), b.depth_stride == 1)
}

fn shape(a: &GpuOperand, b: &GpuOperand) -> ProductShape {
    ProductShape {
        rows: a.rows,
        cols: b.rows,
        depth: a.depth,
    }
}

fn digits(a: &GpuOperand, b: &GpuOperand) -> DigitCounts {
    DigitCounts {
        a: a.digits(),
        b: b.digits(),
    }
}

/// The product into `out`, which may be `left`, by way of exact sums where the summed axis is cut.
fn multiply(
    cuda: &Cuda,
    engine: ProductEngine,
    a: &GpuOperand,
    b: &GpuOperand,
    out: &Slice<f32>,
    left: &[&Slice<f32>],
) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let is_cut = a.depth > 0 && {
        let plan = tiles::plan(engine, cuda.multiprocessors(), shape(a, b), digits(a, b));
        plan.runs() > 1
    };
    if is_cut || a.depth == 0 {
        let sums = sums_by(cuda, engine, a, b)?;
        return finish(cuda, &sums, a, b, out, left);
    }
    launch(cuda, engine, a, b, Results::Rounded { out, left })
}

/// Starts the kernel of a product that is not empty.
fn launch(
    cuda: &Cuda,
    engine: ProductEngine,
    a: &GpuOperand,
    b: &GpuOperand,
    into: Results<'_>,
) -> Result<()> {
    assert_eq!(a.depth, b.depth, "the summed axes differ");
    for operand in [a, b] {
        assert!(
            operand.is_inside(),
            "the strides of {} rows leave the codes",
            operand.rows
        );
    }
    let plan = tiles::plan(engine, cuda.multiprocessors(), shape(a, b), digits(a, b));
    let (out, left, sums) = match into {
        Results::Rounded { out, left } => (Some(out), left, None),
        Results::Sums(sums) => (None, &[][..], Some(sums)),
    };
    let arguments = arguments![
        &a.q,
        a.row_stride as u64,
        a.depth_stride as u64,
        a.exp.as_ref(),
        &b.q,
        b.row_stride as u64,
        b.depth_stride as u64,
        b.exp.as_ref(),
        a.rows as u32,
        b.rows as u32,
        a.depth as u32,
        plan.chunk as u32,
        out,
        left.first().copied(),
        left.get(1).copied(),
        left.get(2).copied(),
        sums,
    ];
    cuda.launch(engine.kernel(digits(a, b)), plan.grid, arguments)
}

/// `y = x W^T` as [`Device::matmul`](crate::Device::matmul) has it, by an engine that the sizes
/// would not choose: for checks and timing.
///
/// # Errors
/// [`KernelError::Cuda`] where the GPU is out of memory or lost.
///
/// # Panics
/// Where the depths differ, or the GPU lacks the engine.
pub fn product_by(
    cuda: &Cuda,
    engine: ProductEngine,
    x: &Coded,
    w: &Coded,
) -> std::result::Result<Tensor, KernelError> {
    assert!(
        ProductEngine::of(cuda.arch()).contains(&engine),
        "{} has no {engine}",
        cuda.arch()
    );
    let (a, b) = (GpuOperand::by_rows(cuda, x)?, GpuOperand::by_rows(cuda, w)?);
    let out = cuda.alloc(x.rows * w.rows)?;
    multiply(cuda, engine, &a, &b, &out, &[])?;
    Tensor::new(&[x.rows, w.rows], out)
}

/// `y = x W^T`: x `[m, k]`, w `[n, k]`, y `[m, n]`.
pub(crate) fn forward(cuda: &Cuda, x: &Coded, w: &Coded) -> Result<Slice<f32>> {
    product(
        cuda,
        &GpuOperand::by_rows(cuda, x)?,
        &GpuOperand::by_rows(cuda, w)?,
    )
}

/// The exact sums of `x W^T` over the columns that x and w hold: devices that share the summed axis
/// add theirs up, in any order, then [`rounded`] rounds them once.
///
/// # Errors
/// [`KernelError::Cuda`] where the GPU is out of memory or lost.
///
/// # Panics
/// Where the columns differ.
pub fn partial(cuda: &Cuda, x: &Coded, w: &Coded) -> std::result::Result<Slice<i64>, KernelError> {
    let (x, w) = (GpuOperand::by_rows(cuda, x)?, GpuOperand::by_rows(cuda, w)?);
    sums_by(cuda, choose(cuda, &x, &w), &x, &w)
}

/// `y = round_f32(2^(ex + ew) * sums)`, for the sums `[m, n]` that [`partial`] gives of such x and
/// w.
///
/// # Errors
/// As [`partial`].
///
/// # Panics
/// Where there are not as many sums as rows of x by rows of w.
pub fn rounded(
    cuda: &Cuda,
    sums: &Slice<i64>,
    x: &Coded,
    w: &Coded,
) -> std::result::Result<Slice<f32>, KernelError> {
    assert_eq!(sums.len(), x.rows * w.rows, "a sum an element");
    let (x, w) = (GpuOperand::by_rows(cuda, x)?, GpuOperand::by_rows(cuda, w)?);
    let y = cuda.alloc(sums.len())?;
    finish(cuda, sums, &x, &w, &y, &[])?;
    Ok(y)
}

/// `dx = dy W`: dy `[m, n]`, w `[n, k]`, dx `[m, k]`. The exponents of w are folded into dy.
pub(crate) fn input_gradient(
    cuda: &Cuda,
    dy: &Slice<f32>,
    w: &Coded,
    precision: Precision,
) -> Result<Slice<f32>> {
    let fold = w.exp.on(cuda)?;
    let coded = code::rows(cuda, dy, w.rows, Some(&fold), precision)?;
    let dy = GpuOperand::by_rows(cuda, &coded)?;
    product(cuda, &dy, &GpuOperand::by_cols(cuda, w)?)
}
