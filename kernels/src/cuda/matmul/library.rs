//! Products by a library that multiplies bytes: codes are split into planes of digits, the library
//! multiplies the planes, and their sums are put together and rounded.

use super::operand::GpuOperand;
use super::verify::verify_by;
use super::{Results, finish};
use crate::KernelError;
use crate::cuda::cublaslt::CublasLt;
use crate::cuda::{Cuda, CudaError, Grid, Kernel, Result, Slice, arguments, grids};
use crate::gpu::{ByteProducts, ProductShape};

/// Rows that a block of `digit_planes` splits: `PLANE_ROWS` of `matmul.cu`.
const PLANE_ROWS: usize = 64;

/// Rows and columns of planes are multiples of it, with zeros at their ends: libraries want aligned
/// rows.
const ALIGNMENT: usize = 32;

/// The longest sum that the library may add up in 32 bits, products of two pairs of digits
/// included.
const DEPTH_MAX: usize = 65_536;

/// Uses cuBLASLt for products of this GPU, where the machine has it and it passes the vectors of
/// [`verify`](super::verify()). Returns whether it is in use now.
///
/// # Errors
/// [`CudaError::WrongProducts`] where it multiplies wrongly; [`KernelError::Cuda`] where the GPU is
/// out of memory or lost.
pub fn offer_library(cuda: &Cuda) -> std::result::Result<bool, KernelError> {
    match CublasLt::open(cuda)? {
        Some(library) => offer(cuda, Box::new(library)),
        None => Ok(false),
    }
}

/// Puts `library` into use on this GPU where it passes the vectors; one that refuses products of
/// bytes is not used.
pub(super) fn offer(cuda: &Cuda, library: Box<dyn ByteProducts>) -> Result<bool> {
    let name = format!("{library:?}");
    let by_library = |a: &GpuOperand, b: &GpuOperand, into: Results<'_>| {
        multiply(cuda, library.as_ref(), a, b, into)
    };
    match verify_by(cuda, &name, &by_library) {
        Ok(()) => {
            cuda.use_library(library);
            Ok(true)
        }
        Err(KernelError::Cuda(CudaError::Call { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A product that is not empty, by the library.
pub(super) fn multiply(
    cuda: &Cuda,
    library: &dyn ByteProducts,
    a: &GpuOperand,
    b: &GpuOperand,
    into: Results<'_>,
) -> Result<()> {
    if a.depth <= DEPTH_MAX {
        return add_run(cuda, library, a, b, (0, a.depth), into);
    }
    let own;
    let (sums, rounded) = match into {
        Results::Sums(sums) => (sums, None),
        Results::Rounded { out, left } => {
            own = cuda.zeros(a.rows * b.rows)?;
            (&own, Some((out, left)))
        }
    };
    for start in (0..a.depth).step_by(DEPTH_MAX) {
        let end = a.depth.min(start + DEPTH_MAX);
        add_run(cuda, library, a, b, (start, end), Results::Sums(sums))?;
    }
    match rounded {
        Some((out, left)) => finish(cuda, sums, a, b, out, left),
        None => Ok(()),
    }
}

/// The product over `[start, end)` of the summed axis.
fn add_run(
    cuda: &Cuda,
    library: &dyn ByteProducts,
    a: &GpuOperand,
    b: &GpuOperand,
    run: (usize, usize),
    into: Results<'_>,
) -> Result<()> {
    let (x, y) = (Planes::of(cuda, a, run)?, Planes::of(cuda, b, run)?);
    let shape = ProductShape {
        rows: x.rows,
        cols: y.rows,
        depth: x.depth,
    };
    let count = x.digits + y.digits - 1;
    let plane = shape.rows * shape.cols;
    let sums = cuda.alloc::<i32>(count * plane)?;
    let mut has_begun = [false; 3];
    for i in 0..x.digits {
        for j in 0..y.digits {
            let into = sums.part((i + j) * plane, plane);
            library.multiply(shape, &x.plane(i), &y.plane(j), &into, has_begun[i + j])?;
            has_begun[i + j] = true;
        }
    }
    let (out, left, exact) = match into {
        Results::Rounded { out, left } => (Some(out), left, None),
        Results::Sums(sums) => (None, &[][..], Some(sums)),
    };
    let arguments = arguments![
        &sums,
        count as u32,
        shape.rows as u32,
        shape.cols as u32,
        a.exp.as_ref(),
        b.exp.as_ref(),
        a.rows as u32,
        b.rows as u32,
        out,
        left.first().copied(),
        left.get(1).copied(),
        left.get(2).copied(),
        exact,
    ];
    let grid = grids::over(cuda, a.rows * b.rows);
    cuda.launch(kernel("digit_join"), grid, arguments)
}

const fn kernel(name: &'static str) -> Kernel {
    let module = "matmul";
    Kernel { module, name }
}

/// The digits of an operand, one plane of bytes per digit, the low digits first.
struct Planes {
    bytes: Slice<i8>,
    digits: usize,
    rows: usize,
    depth: usize,
}

impl Planes {
    /// Those of `[start, end)` along the depth.
    fn of(cuda: &Cuda, operand: &GpuOperand, (start, end): (usize, usize)) -> Result<Self> {
        let rows = operand.rows.next_multiple_of(ALIGNMENT);
        let depth = (end - start).next_multiple_of(ALIGNMENT);
        let digits = operand.digits();
        let bytes = cuda.alloc(digits * rows * depth)?;
        let grid = Grid::new(rows.div_ceil(PLANE_ROWS) as u32, 256);
        let arguments = arguments![
            &operand.q,
            operand.row_stride as u64,
            operand.depth_stride as u64,
            operand.rows as u32,
            start as u32,
            end as u32,
            digits as u32,
            rows as u32,
            depth as u32,
            &bytes,
        ];
        let grid = grid.y((depth / ALIGNMENT) as u32);
        cuda.launch(kernel("digit_planes"), grid, arguments)?;
        Ok(Self {
            bytes,
            digits,
            rows,
            depth,
        })
    }

    fn plane(&self, digit: usize) -> Slice<i8> {
        let size = self.rows * self.depth;
        self.bytes.part(digit * size, size)
    }
}
