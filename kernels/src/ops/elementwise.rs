//! Sums and scaled sums, element by element.

use super::matmul::tensor;
use super::{Atoms, tree_sum};
use crate::{Device, KernelError, Tensor, cpu, cuda};

impl Device {
    /// `a += b`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn add_assign(&self, a: &mut Tensor, b: &Tensor) -> Result<(), KernelError> {
        assert_eq!(a.len(), b.len(), "add_assign: lengths");
        if let Self::Cuda(gpu) = self {
            let b = b.on(gpu)?;
            return cuda::elementwise::add_assign(gpu, a.unique_on(gpu)?, &b);
        }
        add(a.values_mut()?, &b.values()?);
        Ok(())
    }

    /// `a = fma(factor, b, a)`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn scaled_add_assign(
        &self,
        a: &mut Tensor,
        factor: f32,
        b: &Tensor,
    ) -> Result<(), KernelError> {
        assert_eq!(a.len(), b.len(), "scaled_add_assign: lengths");
        if let Self::Cuda(gpu) = self {
            let b = b.on(gpu)?;
            return cuda::elementwise::scaled_add_assign(gpu, a.unique_on(gpu)?, factor, &b);
        }
        let (a, b) = (a.values_mut()?, b.values()?);
        self.host_scaled_add(a, factor, &b);
        Ok(())
    }

    /// `a = fma(factor, b, a)` for the rows of `a` from `start` on, as many as b has.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn scaled_add_rows(
        &self,
        a: &mut Tensor,
        start: usize,
        factor: f32,
        b: &Tensor,
    ) -> Result<(), KernelError> {
        let (_, cols) = a.rows_cols();
        assert_eq!(cols, b.rows_cols().1, "scaled_add_rows: columns");
        let at = start * cols;
        if let Self::Cuda(gpu) = self {
            let b = b.on(gpu)?;
            let a = a.unique_on(gpu)?.part(at, b.len());
            return cuda::elementwise::scaled_add_assign(gpu, &a, factor, &b);
        }
        let (a, b) = (a.values_mut()?, b.values()?);
        self.host_scaled_add(&mut a[at..at + b.len()], factor, &b);
        Ok(())
    }

    fn host_scaled_add(&self, a: &mut [f32], factor: f32, b: &[f32]) {
        match self {
            Self::Cpu(cpu) => cpu::elementwise::scaled_add_assign(cpu.isa(), a, factor, b),
            _ => a
                .iter_mut()
                .zip(b)
                .for_each(|(a, b)| *a = factor.mul_add(*b, *a)),
        }
    }

    /// `factor * x`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn scaled(&self, x: &Tensor, factor: f32) -> Result<Tensor, KernelError> {
        if let Self::Cuda(gpu) = self {
            return tensor(
                x.shape(),
                cuda::elementwise::scaled(gpu, &x.on(gpu)?, factor)?,
            );
        }
        let scaled: Vec<f32> = x.values()?.iter().map(|v| v * factor).collect();
        tensor(x.shape(), scaled)
    }

    /// Adds `bias` `[n]` to every row of `x` `[m, n]`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn add_bias(&self, x: &mut Tensor, bias: &Tensor) -> Result<(), KernelError> {
        assert_eq!(x.rows_cols().1, bias.len(), "add_bias: columns");
        if let Self::Cuda(gpu) = self {
            let bias = bias.on(gpu)?;
            return cuda::elementwise::add_bias(gpu, x.unique_on(gpu)?, &bias);
        }
        let bias = bias.values()?;
        x.values_mut()?
            .chunks_exact_mut(bias.len())
            .for_each(|row| add(row, &bias));
        Ok(())
    }

    /// Gradient of a bias `[n]` from dy `[m, n]`: in an atom tokens in order, atoms by the tree.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn bias_gradient(&self, dy: &Tensor, atoms: &Atoms) -> Result<Tensor, KernelError> {
        let (_, cols) = dy.rows_cols();
        if let Self::Cuda(gpu) = self {
            let sum = cuda::elementwise::bias_gradient(gpu, &dy.on(gpu)?, cols, atoms)?;
            return tensor(&[cols], sum);
        }
        let dy = dy.values()?;
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let mut sum = vec![0.0; cols];
            for row in dy[start * cols..(start + count) * cols].chunks_exact(cols) {
                add(&mut sum, row);
            }
            sum
        };
        let sum = tree_sum(atoms.count(), &mut atom, &mut |a, b| add(a, &b));
        tensor(&[cols], sum)
    }
}

/// `a += b` on the host.
pub(super) fn add(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}
