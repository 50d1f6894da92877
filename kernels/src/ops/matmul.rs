//! Products: forward, gradient of the input, gradient of the weight.

use crate::coded::{Coded, Operand, Precision};
use crate::reference::tree::{Atoms, tree_sum};
use crate::{Buffer, Device, KernelError, Tensor, WeightRef, cpu, cuda, reference};

impl Device {
    fn product(&self, a: Operand<'_>, b: Operand<'_>) -> Vec<f32> {
        match self {
            Self::Cpu(cpu) => cpu::matmul::product(cpu, a, b),
            _ => reference::matmul::matmul(a, b),
        }
    }

    /// `y = x W^T`: x `[m, k]`, w `[n, k]`, as codes or packed, y `[m, n]`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn matmul<'w>(
        &self,
        x: &Coded,
        w: impl Into<WeightRef<'w>>,
    ) -> Result<Tensor, KernelError> {
        let w = w.into();
        let [rows, cols] = w.shape();
        assert_eq!(
            x.cols, cols,
            "matmul: x {}x{} w {rows}x{cols}",
            x.rows, x.cols
        );
        let shape = [x.rows, rows];
        if let (Self::Cpu(cpu), WeightRef::Packed(w)) = (self, w) {
            let x = x.on_host()?;
            let mut out = vec![0.0; x.rows * rows];
            cpu::matmul::by_packed(cpu, x.by_rows(), w, &mut out);
            return tensor(&shape, out);
        }
        let w = w.codes();
        if let Self::Cuda(gpu) = self {
            return tensor(&shape, cuda::matmul::forward(gpu, x, &w)?);
        }
        let (x, w) = (x.on_host()?, w.on_host()?);
        tensor(&shape, self.product(x.by_rows(), w.by_rows()))
    }

    /// `y = fma(factor, x W^T, y)`: as [`Self::matmul`], then [`Self::scaled_add_assign`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn scaled_add_matmul(
        &self,
        y: &mut Tensor,
        factor: f32,
        x: &Coded,
        w: &Coded,
    ) -> Result<(), KernelError> {
        let Self::Cpu(cpu) = self else {
            return self.scaled_add_assign(y, factor, &self.matmul(x, w)?);
        };
        assert_eq!((y.rows_cols(), x.cols), ((x.rows, w.rows), w.cols));
        let (x, w) = (x.on_host()?, w.on_host()?);
        cpu::matmul::scaled_add_product(cpu, x.by_rows(), w.by_rows(), factor, y.values_mut()?);
        Ok(())
    }

    /// `dx += dy W`: as [`Self::matmul_dx`], then [`Self::add_assign`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn add_matmul_dx(
        &self,
        dx: &mut Tensor,
        dy: &Tensor,
        w: &Coded,
        precision: Precision,
    ) -> Result<(), KernelError> {
        let Self::Cpu(cpu) = self else {
            return self.add_assign(dx, &self.matmul_dx(dy, w, precision)?);
        };
        let (rows, cols) = dy.rows_cols();
        assert_eq!((dx.rows_cols(), cols), ((rows, w.cols), w.rows));
        let w = w.on_host()?;
        let coded = self.code_rows(&dy.values()?, cols, Some(w.exp.data()), precision);
        let (a, b) = (coded.by_rows(), w.by_cols(0, w.rows));
        // fma(1, p, dx) is dx + p.
        cpu::matmul::scaled_add_product(cpu, a, b, 1.0, dx.values_mut()?);
        Ok(())
    }

    /// `dx = dy W`: dy `[m, n]`, w `[n, k]`, as codes or packed, dx `[m, k]`. The exponents of w
    /// are folded into dy.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn matmul_dx<'w>(
        &self,
        dy: &Tensor,
        w: impl Into<WeightRef<'w>>,
        precision: Precision,
    ) -> Result<Tensor, KernelError> {
        let w = w.into();
        let ([w_rows, w_cols], (rows, cols)) = (w.shape(), dy.rows_cols());
        assert_eq!(
            cols, w_rows,
            "matmul_dx: dy {rows}x{cols}, w {w_rows}x{w_cols}"
        );
        let shape = [rows, w_cols];
        if let (Self::Cpu(cpu), WeightRef::Packed(w)) = (self, w) {
            let coded = self.code_rows(&dy.values()?, cols, Some(w.exp()), precision);
            let mut out = vec![0.0; rows * w_cols];
            cpu::matmul::by_packed_columns(cpu, coded.by_rows(), w, &mut out);
            return tensor(&shape, out);
        }
        let w = w.codes();
        if let Self::Cuda(gpu) = self {
            let dx = cuda::matmul::input_gradient(gpu, &dy.on(gpu)?, &w, precision)?;
            return tensor(&shape, dx);
        }
        let w = w.on_host()?;
        let coded = self.code_rows(&dy.values()?, cols, Some(w.exp.data()), precision);
        tensor(&shape, self.product(coded.by_rows(), w.by_cols(0, w.rows)))
    }

    /// `dW = dy^T x` over the tokens of `atoms`: dy `[m, n]`, x `[m, k]`, dW `[n, k]`. Each atom is
    /// exact and rounded once; atoms are added by the tree.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn matmul_dw(
        &self,
        dy: &Tensor,
        x: &Coded,
        atoms: &Atoms,
        precision: Precision,
    ) -> Result<Tensor, KernelError> {
        let (rows, cols) = dy.rows_cols();
        assert_eq!(
            (rows, rows),
            (x.rows, atoms.tokens()),
            "matmul_dw: tokens of dy, x, atoms"
        );
        let shape = [cols, x.cols];
        if let Self::Cuda(gpu) = self {
            let dw = cuda::matmul::weight_gradient(gpu, &dy.on(gpu)?, cols, x, atoms, precision)?;
            return tensor(&shape, dw);
        }
        let (dy, x) = (dy.values()?, x.on_host()?);
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let dy = &dy[start * cols..(start + count) * cols];
            let fold = &x.exp.data()[start..start + count];
            let coded = self.code_cols(dy, cols, Some(fold), precision);
            self.product(coded.by_rows(), x.by_cols(start, count))
        };
        let sum = tree_sum(atoms.count(), &mut atom, &mut |a, b| self.host_add(a, &b));
        tensor(&shape, sum)
    }
}

/// A tensor of elements that were made to fill its shape.
pub(super) fn tensor(
    shape: &[usize],
    elements: impl Into<Buffer<f32>>,
) -> Result<Tensor, KernelError> {
    Tensor::new(shape, elements)
}
