//! Coding and products: forward, gradient of the input, gradient of the weight.

use super::{Atoms, tree_sum};
use crate::coded::{Coded, Operand, Precision};
use crate::{Device, Tensor, cpu, reference};

impl Device {
    /// Codes the rows of `x`, seen as rows of `cols` elements.
    pub fn code(&self, x: &[f32], cols: usize, precision: Precision) -> Coded {
        self.code_rows(x, cols, None, precision)
    }

    fn code_rows(&self, x: &[f32], cols: usize, fold: Option<&[i32]>, p: Precision) -> Coded {
        match self {
            Self::Reference => reference::code::code_rows(x, cols, fold, p),
            Self::Cpu(cpu) => cpu::code::code_rows(cpu, x, cols, fold, p),
        }
    }

    fn code_cols(&self, x: &[f32], cols: usize, fold: Option<&[i32]>, p: Precision) -> Coded {
        match self {
            Self::Reference => reference::code::code_cols(x, cols, fold, p),
            Self::Cpu(cpu) => cpu::code::code_cols(cpu, x, cols, fold, p),
        }
    }

    fn product(&self, a: Operand<'_>, b: Operand<'_>) -> Vec<f32> {
        match self {
            Self::Reference => reference::matmul::matmul(a, b),
            Self::Cpu(cpu) => {
                let mut out = vec![0.0; a.rows * b.rows];
                cpu::gemm::gemm(cpu, a, b, &mut out);
                out
            }
        }
    }

    /// `y = x W^T`: x `[m, k]`, w `[n, k]`, y `[m, n]`.
    pub fn matmul(&self, x: &Coded, w: &Coded) -> Tensor {
        assert_eq!(
            x.cols, w.cols,
            "matmul: x {}x{} w {}x{}",
            x.rows, x.cols, w.rows, w.cols
        );
        tensor(&[x.rows, w.rows], self.product(x.by_rows(), w.by_rows()))
    }

    /// `dx = dy W`: dy `[m, n]`, w `[n, k]`, dx `[m, k]`. The exponents of w are folded into dy.
    pub fn matmul_dx(&self, dy: &Tensor, w: &Coded, precision: Precision) -> Tensor {
        let (rows, cols) = dy.rows_cols();
        assert_eq!(
            cols, w.rows,
            "matmul_dx: dy {rows}x{cols}, w {}x{}",
            w.rows, w.cols
        );
        let coded = self.code_rows(dy.data(), cols, Some(&w.exp), precision);
        tensor(
            &[rows, w.cols],
            self.product(coded.by_rows(), w.by_cols(0, w.rows)),
        )
    }

    /// `dW = dy^T x` over the tokens of `atoms`: dy `[m, n]`, x `[m, k]`, dW `[n, k]`. Each atom is
    /// exact and rounded once; atoms are added by the tree.
    pub fn matmul_dw(&self, dy: &Tensor, x: &Coded, atoms: &Atoms, precision: Precision) -> Tensor {
        let (rows, cols) = dy.rows_cols();
        assert_eq!(
            (rows, rows),
            (x.rows, atoms.tokens()),
            "matmul_dw: tokens of dy, x, atoms"
        );
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let dy = &dy.data()[start * cols..(start + count) * cols];
            let coded = self.code_cols(dy, cols, Some(&x.exp[start..start + count]), precision);
            self.product(coded.by_rows(), x.by_cols(start, count))
        };
        let sum = tree_sum(atoms.count(), &mut atom, &mut |a, b| self.add_assign(a, &b));
        tensor(&[cols, x.cols], sum)
    }
}

/// A tensor of data that was made to fill its shape.
pub(super) fn tensor(shape: &[usize], data: Vec<f32>) -> Tensor {
    Tensor::new(shape, data).expect("the data was made for the shape")
}
