//! Sums and scaled sums, element by element, and the canonical form before a tensor is hashed.

use super::matmul::tensor;
use crate::reference::elementwise::{
    add_assign, add_bias, bias_gradient, canonicalise, products, scaled, scaled_add_assign,
    scaled_columns,
};
use crate::reference::tree::{Atoms, tree_sum};
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
        self.host_add(a.values_mut()?, &b.values()?);
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
            Self::Cpu(cpu) => cpu::elementwise::scaled_add_assign(cpu, a, factor, b),
            _ => scaled_add_assign(a, factor, b),
        }
    }

    pub(super) fn host_add(&self, a: &mut [f32], b: &[f32]) {
        match self {
            Self::Cpu(cpu) => cpu::elementwise::add_assign(cpu, a, b),
            _ => add_assign(a, b),
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
        let values = x.values()?;
        let scaled = match self {
            Self::Cpu(cpu) => cpu::elementwise::scaled(cpu, &values, factor),
            _ => scaled(&values, factor),
        };
        tensor(x.shape(), scaled)
    }

    /// `a * b`, element by element.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn products(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, KernelError> {
        assert_eq!(a.len(), b.len(), "products: lengths");
        if let Self::Cuda(gpu) = self {
            let y = cuda::elementwise::products(gpu, &a.on(gpu)?, &b.on(gpu)?)?;
            return tensor(a.shape(), y);
        }
        tensor(a.shape(), products(&a.values()?, &b.values()?))
    }

    /// Every row of `x` `[m, n]` times `factors` `[n]`, element by element.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn scaled_columns(&self, x: &Tensor, factors: &Tensor) -> Result<Tensor, KernelError> {
        assert_eq!(x.rows_cols().1, factors.len(), "scaled_columns: columns");
        if let Self::Cuda(gpu) = self {
            let y = cuda::elementwise::scaled_columns(gpu, &x.on(gpu)?, &factors.on(gpu)?)?;
            return tensor(x.shape(), y);
        }
        tensor(x.shape(), scaled_columns(&x.values()?, &factors.values()?))
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
        add_bias(x.values_mut()?, &bias.values()?);
        Ok(())
    }

    /// Gradient of a bias `[n]` from dy `[m, n]`: in an atom rows in order, atoms by the tree. A
    /// token may have several rows (one for each head).
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn bias_gradient(&self, dy: &Tensor, atoms: &Atoms) -> Result<Tensor, KernelError> {
        let (rows, cols) = dy.rows_cols();
        if let Self::Cuda(gpu) = self {
            let sum = cuda::elementwise::bias_gradient(gpu, &dy.on(gpu)?, cols, atoms)?;
            return tensor(&[cols], sum);
        }
        let rows_per_token = rows.checked_div(atoms.tokens()).unwrap_or(0);
        let dy = dy.values()?;
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let (start, end) = (start * rows_per_token, (start + count) * rows_per_token);
            bias_gradient(&dy[start * cols..end * cols], cols)
        };
        let sum = tree_sum(atoms.count(), &mut atom, &mut |a, b| add_assign(a, &b));
        tensor(&[cols], sum)
    }

    /// Turns every -0 into +0, and refuses NaN and infinity, as must be done before hashing.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`], naming the first bad tensor and its first bad element;
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn canonicalise(&self, tensors: &mut [(&str, &mut Tensor)]) -> Result<(), KernelError> {
        let Self::Cuda(gpu) = self else {
            return tensors
                .iter_mut()
                .try_for_each(|(name, x)| canonicalise(name, x.values_mut()?));
        };
        let slices = tensors
            .iter_mut()
            .map(|(_, x)| x.unique_on(gpu).cloned())
            .collect::<Result<Vec<_>, _>>()?;
        match cuda::elementwise::canonicalise(gpu, &slices)? {
            None => Ok(()),
            Some(bad) => {
                let found = gpu.download(&slices[bad.tensor].part(bad.index, 1))?;
                Err(KernelError::NotFinite {
                    tensor: tensors[bad.tensor].0.to_string(),
                    index: bad.index,
                    value: found[0],
                })
            }
        }
    }
}
