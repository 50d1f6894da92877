//! RMSNorm. y[r,c] = (x[r,c] * inv[r]) * w[c], inv = 1 / sqrt(mean(x^2) + eps).

use super::matmul::tensor;
use crate::reference::elementwise::add_assign;
use crate::reference::tree::{Atoms, tree_sum};
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// y of the shape of x, and inv, one for each row of `w.len()` elements.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn rmsnorm(
        &self,
        x: &Tensor,
        w: &Tensor,
        eps: f32,
    ) -> Result<(Tensor, Tensor), KernelError> {
        assert_eq!(x.rows_cols().1 % w.len(), 0, "rmsnorm: columns");
        let rows = x.len() / w.len();
        if let Self::Cuda(gpu) = self {
            let (y, inverse) = cuda::rmsnorm::forward(gpu, &x.on(gpu)?, &w.on(gpu)?, eps)?;
            return Ok((tensor(x.shape(), y)?, tensor(&[rows], inverse)?));
        }
        let (values, weight) = (x.values()?, w.values()?);
        let (y, inverse) = match self {
            Self::Cpu(cpu) => cpu::rmsnorm::forward(cpu, &values, &weight, eps),
            _ => reference::rmsnorm::forward(&values, &weight, eps),
        };
        Ok((tensor(x.shape(), y)?, tensor(&[rows], inverse)?))
    }

    /// dx of the shape of x.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn rmsnorm_dx(
        &self,
        dy: &Tensor,
        x: &Tensor,
        w: &Tensor,
        inverse: &Tensor,
    ) -> Result<Tensor, KernelError> {
        assert_eq!(dy.shape(), x.shape(), "rmsnorm_dx: shapes");
        if let Self::Cuda(gpu) = self {
            let (dy, values) = (dy.on(gpu)?, x.on(gpu)?);
            let (w, inverse) = (w.on(gpu)?, inverse.on(gpu)?);
            let dx = cuda::rmsnorm::backward(gpu, &dy, &values, &w, &inverse)?;
            return tensor(x.shape(), dx);
        }
        let (dy, values) = (dy.values()?, x.values()?);
        let (w, inverse) = (w.values()?, inverse.values()?);
        let dx = match self {
            Self::Cpu(cpu) => cpu::rmsnorm::backward(cpu, &dy, &values, &w, &inverse),
            _ => reference::rmsnorm::backward(&dy, &values, &w, &inverse),
        };
        tensor(x.shape(), dx)
    }

    /// dw `[cols]`: in an atom rows in order, atoms by the tree. A token may have several rows
    /// (one for each head).
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn rmsnorm_dw(
        &self,
        dy: &Tensor,
        x: &Tensor,
        inverse: &Tensor,
        cols: usize,
        atoms: &Atoms,
    ) -> Result<Tensor, KernelError> {
        if let Self::Cuda(gpu) = self {
            let (dy, x, inverse) = (dy.on(gpu)?, x.on(gpu)?, inverse.on(gpu)?);
            let dw = cuda::rmsnorm::weight_gradient(gpu, &dy, &x, &inverse, cols, atoms)?;
            return tensor(&[cols], dw);
        }
        let (dy, x, inverse) = (dy.values()?, x.values()?, inverse.values()?);
        let rows_per_token = inverse.len() / atoms.tokens();
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let (start, end) = (start * rows_per_token, (start + count) * rows_per_token);
            let at = start * cols..end * cols;
            let (dy, x) = (&dy[at.clone()], &x[at]);
            match self {
                Self::Cpu(cpu) => {
                    let mut dw = vec![0.0; cols];
                    let isa = cpu.isa();
                    cpu::rmsnorm::weight_gradient(isa, dy, x, &inverse[start..end], &mut dw);
                    dw
                }
                _ => reference::rmsnorm::weight_gradient(dy, x, &inverse[start..end], cols),
            }
        };
        let sum = tree_sum(atoms.count(), &mut atom, &mut |a, b| add_assign(a, &b));
        tensor(&[cols], sum)
    }
}
