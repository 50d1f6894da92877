//! LayerNorm. y[r,c] = fma((x[r,c] - mean[r]) * inv[r], w[c], b[c]).

use super::matmul::tensor;
use crate::reference::elementwise::add_assign;
use crate::reference::tree::{Atoms, tree_sum};
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// y of the shape of x, then mean and inv, one for each row of `w.len()` elements. Without b
    /// nothing is added.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn layernorm(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: Option<&Tensor>,
        eps: f32,
    ) -> Result<(Tensor, Tensor, Tensor), KernelError> {
        assert_eq!(x.rows_cols().1 % w.len(), 0, "layernorm: columns");
        assert!(b.is_none_or(|b| b.len() == w.len()), "layernorm: bias");
        let rows = x.len() / w.len();
        if let Self::Cuda(gpu) = self {
            let b = b.map(|b| b.on(gpu)).transpose()?;
            let (values, w) = (x.on(gpu)?, w.on(gpu)?);
            let [y, mean, inverse] = cuda::layernorm::forward(gpu, &values, &w, b.as_ref(), eps)?;
            let (mean, inverse) = (tensor(&[rows], mean)?, tensor(&[rows], inverse)?);
            return Ok((tensor(x.shape(), y)?, mean, inverse));
        }
        let (values, w) = (x.values()?, w.values()?);
        let b = b.map(Tensor::values).transpose()?;
        let [y, mean, inverse] = match self {
            Self::Cpu(cpu) => cpu::layernorm::forward(cpu, &values, &w, b.as_deref(), eps),
            _ => reference::layernorm::forward(&values, &w, b.as_deref(), eps),
        };
        let (mean, inverse) = (tensor(&[rows], mean)?, tensor(&[rows], inverse)?);
        Ok((tensor(x.shape(), y)?, mean, inverse))
    }

    /// dx of the shape of x.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn layernorm_dx(
        &self,
        dy: &Tensor,
        x: &Tensor,
        w: &Tensor,
        mean: &Tensor,
        inverse: &Tensor,
    ) -> Result<Tensor, KernelError> {
        assert_eq!(dy.shape(), x.shape(), "layernorm_dx: shapes");
        if let Self::Cuda(gpu) = self {
            let scales = (&mean.on(gpu)?, &inverse.on(gpu)?);
            let (dy, values, w) = (dy.on(gpu)?, x.on(gpu)?, w.on(gpu)?);
            let dx = cuda::layernorm::backward(gpu, &dy, &values, &w, scales)?;
            return tensor(x.shape(), dx);
        }
        let (dy, values, w) = (dy.values()?, x.values()?, w.values()?);
        let (mean, inverse) = (mean.values()?, inverse.values()?);
        let dx = match self {
            Self::Cpu(cpu) => cpu::layernorm::backward(cpu, &dy, &values, &w, &mean, &inverse),
            _ => reference::layernorm::backward(&dy, &values, &w, &mean, &inverse),
        };
        tensor(x.shape(), dx)
    }

    /// dw `[cols]`: in an atom rows in order, atoms by the tree. A token may have several rows
    /// (one for each head). The gradient of b is [`Self::bias_gradient`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn layernorm_dw(
        &self,
        dy: &Tensor,
        x: &Tensor,
        mean: &Tensor,
        inverse: &Tensor,
        cols: usize,
        atoms: &Atoms,
    ) -> Result<Tensor, KernelError> {
        if let Self::Cuda(gpu) = self {
            let scales = (&mean.on(gpu)?, &inverse.on(gpu)?);
            let (dy, x) = (dy.on(gpu)?, x.on(gpu)?);
            let dw = cuda::layernorm::weight_gradient(gpu, &dy, &x, scales, cols, atoms)?;
            return tensor(&[cols], dw);
        }
        let (dy, x, mean, inverse) = (dy.values()?, x.values()?, mean.values()?, inverse.values()?);
        let rows_per_token = inverse.len() / atoms.tokens();
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let (start, end) = (start * rows_per_token, (start + count) * rows_per_token);
            let at = start * cols..end * cols;
            let (dy, x) = (&dy[at.clone()], &x[at]);
            let (mean, inverse) = (&mean[start..end], &inverse[start..end]);
            match self {
                Self::Cpu(cpu) => {
                    let mut dw = vec![0.0; cols];
                    cpu::layernorm::weight_gradient(cpu.isa(), dy, x, (mean, inverse), &mut dw);
                    dw
                }
                _ => reference::layernorm::weight_gradient(dy, x, mean, inverse, cols),
            }
        };
        let sum = tree_sum(atoms.count(), &mut atom, &mut |a, b| add_assign(a, &b));
        tensor(&[cols], sum)
    }
}
