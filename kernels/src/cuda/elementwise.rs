//! Sums and scaled sums, the canonical form that a tensor takes before it leaves the GPU, and the
//! elementary functions of [`crate::math`] over arrays.

use super::grids::{over, over_rows};
use super::reduce::tree;
use super::{Cuda, Kernel, Result, Slice, arguments};
use crate::KernelError;
use crate::reference::tree::Atoms;

const fn kernel(name: &'static str) -> Kernel {
    let module = "elementwise";
    Kernel { module, name }
}

/// Where a tensor of a list is not finite.
pub(crate) struct NotFinite {
    /// Which of the list.
    pub(crate) tensor: usize,
    /// Its first such element.
    pub(crate) index: usize,
}

/// A function of one number, as [`crate::math`] defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elementary {
    /// [`crate::math::exp2`].
    Exp2,
    /// [`crate::math::exp`].
    Exp,
    /// [`crate::math::ln`].
    Ln,
    /// [`crate::math::tanh`].
    Tanh,
    /// [`crate::math::erf`].
    Erf,
    /// [`crate::math::ceil_to_int`], as a float.
    Ceil,
}

/// The function of each element, on the GPU and back: for checks, as other kernels compute these
/// where they need them.
///
/// # Errors
/// [`KernelError::Cuda`] where the GPU is out of memory or lost.
pub fn elementary(
    cuda: &Cuda,
    function: Elementary,
    x: &[f32],
) -> std::result::Result<Vec<f32>, KernelError> {
    let name = match function {
        Elementary::Exp2 => "exp2_assign",
        Elementary::Exp => "exp_assign",
        Elementary::Ln => "ln_assign",
        Elementary::Tanh => "tanh_assign",
        Elementary::Erf => "erf_assign",
        Elementary::Ceil => "ceil_assign",
    };
    let values = cuda.upload(x)?;
    if !x.is_empty() {
        let len = x.len() as u64;
        cuda.launch(kernel(name), over(cuda, x.len()), arguments![&values, len])?;
    }
    Ok(cuda.download(&values)?)
}

/// `a += b`, of one length.
pub(crate) fn add_assign(cuda: &Cuda, a: &Slice<f32>, b: &Slice<f32>) -> Result<()> {
    let len = a.len();
    if len == 0 {
        return Ok(());
    }
    let arguments = arguments![a, b, len as u64];
    cuda.launch(kernel("add_assign"), over(cuda, len), arguments)
}

/// `a = fma(factor, b, a)`, of one length.
pub(crate) fn scaled_add_assign(
    cuda: &Cuda,
    a: &Slice<f32>,
    factor: f32,
    b: &Slice<f32>,
) -> Result<()> {
    let len = a.len();
    if len == 0 {
        return Ok(());
    }
    let arguments = arguments![a, b, factor, len as u64];
    cuda.launch(kernel("scaled_add_assign"), over(cuda, len), arguments)
}

/// `factor * x`.
pub(crate) fn scaled(cuda: &Cuda, x: &Slice<f32>, factor: f32) -> Result<Slice<f32>> {
    let len = x.len();
    let y = cuda.alloc(len)?;
    if len > 0 {
        let arguments = arguments![x, &y, factor, len as u64];
        cuda.launch(kernel("scaled"), over(cuda, len), arguments)?;
    }
    Ok(y)
}

/// `a * b`, of one length.
pub(crate) fn products(cuda: &Cuda, a: &Slice<f32>, b: &Slice<f32>) -> Result<Slice<f32>> {
    let len = a.len();
    let y = cuda.alloc(len)?;
    if len > 0 {
        let arguments = arguments![a, b, &y, len as u64];
        cuda.launch(kernel("products"), over(cuda, len), arguments)?;
    }
    Ok(y)
}

/// Every row of x `[m, n]` times `factors` `[n]`.
pub(crate) fn scaled_columns(
    cuda: &Cuda,
    x: &Slice<f32>,
    factors: &Slice<f32>,
) -> Result<Slice<f32>> {
    let y = cuda.alloc(x.len())?;
    if !x.is_empty() {
        let (rows, cols) = (x.len() / factors.len(), factors.len());
        let arguments = arguments![x, factors, &y, rows as u32, cols as u32];
        let grid = over_rows(rows, cols, 256);
        cuda.launch(kernel("scaled_columns"), grid, arguments)?;
    }
    Ok(y)
}

/// Adds `bias` `[n]` to every row of `x` `[m, n]`.
pub(crate) fn add_bias(cuda: &Cuda, x: &Slice<f32>, bias: &Slice<f32>) -> Result<()> {
    if x.is_empty() {
        return Ok(());
    }
    let (rows, cols) = (x.len() / bias.len(), bias.len());
    let arguments = arguments![x, bias, rows as u32, cols as u32];
    cuda.launch(kernel("add_bias"), over_rows(rows, cols, 256), arguments)
}

/// Gradient of a bias `[cols]` from dy `[rows, cols]`. A token may have several rows.
pub(crate) fn bias_gradient(
    cuda: &Cuda,
    dy: &Slice<f32>,
    cols: usize,
    atoms: &Atoms,
) -> Result<Slice<f32>> {
    let count = atoms.count();
    let rows = dy.len().checked_div(cols).unwrap_or(0);
    let rows_per_token = rows.checked_div(atoms.tokens()).unwrap_or(0);
    let partials = cuda.alloc(count * cols)?;
    for group in atoms.groups().filter(|group| group.count * cols > 0) {
        let (first, rows) = (group.sequences.first_token, group.sequences.tokens());
        let (first, rows) = (first * rows_per_token, rows * rows_per_token);
        cuda.launch(
            kernel("bias_gradient_atoms"),
            over_rows(group.count, cols, 64),
            arguments![
                &dy.part(first * cols, rows * cols),
                &partials.part(group.first_atom * cols, group.count * cols),
                cols as u32,
                group.count as u32,
                (group.sequences.len * rows_per_token) as u64,
                (Atoms::TOKENS * rows_per_token) as u64,
            ],
        )?;
    }
    tree(cuda, partials, count)
}

/// Turns every -0 into +0, in place, and finds the first element that is not finite, in the first
/// tensor that has one. Waits once for all tensors.
pub(crate) fn canonicalise(cuda: &Cuda, tensors: &[Slice<f32>]) -> Result<Option<NotFinite>> {
    let found = cuda.upload(&vec![u64::MAX; tensors.len()])?;
    for (index, x) in tensors.iter().enumerate().filter(|(_, x)| !x.is_empty()) {
        let found = found.part(index, 1);
        let arguments = arguments![x, &found, x.len() as u64];
        cuda.launch(kernel("canonicalise"), over(cuda, x.len()), arguments)?;
    }
    let found = cuda.download(&found)?;
    let first = found.iter().position(|&index| index != u64::MAX);
    Ok(first.map(|tensor| NotFinite {
        tensor,
        index: found[tensor] as usize,
    }))
}
