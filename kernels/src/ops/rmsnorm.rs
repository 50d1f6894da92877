//! RMSNorm. y[r,c] = (x[r,c] * inv[r]) * w[c], inv = 1 / sqrt(mean(x^2) + eps).

use super::matmul::tensor;
use super::{Atoms, tree_sum};
use crate::{Device, Tensor, cpu, reference};

impl Device {
    /// y of the shape of x, and inv, one for each row of `w.len()` elements.
    pub fn rmsnorm(&self, x: &Tensor, w: &[f32], eps: f32) -> (Tensor, Vec<f32>) {
        assert_eq!(x.rows_cols().1 % w.len(), 0, "rmsnorm: columns");
        let (y, inverse) = match self {
            Self::Reference => reference::rmsnorm::forward(x.data(), w, eps),
            Self::Cpu(cpu) => cpu::rmsnorm::forward(cpu, x.data(), w, eps),
        };
        (tensor(x.shape(), y), inverse)
    }

    /// dx of the shape of x.
    pub fn rmsnorm_dx(&self, dy: &Tensor, x: &Tensor, w: &[f32], inverse: &[f32]) -> Tensor {
        assert_eq!(dy.shape(), x.shape(), "rmsnorm_dx: shapes");
        let dx = match self {
            Self::Reference => reference::rmsnorm::backward(dy.data(), x.data(), w, inverse),
            Self::Cpu(cpu) => cpu::rmsnorm::backward(cpu, dy.data(), x.data(), w, inverse),
        };
        tensor(x.shape(), dx)
    }

    /// dw `[cols]`: in an atom rows in order, atoms by the tree. A token may have several rows
    /// (one for each head).
    pub fn rmsnorm_dw(
        &self,
        dy: &Tensor,
        x: &Tensor,
        inverse: &[f32],
        cols: usize,
        atoms: &Atoms,
    ) -> Tensor {
        let rows_per_token = inverse.len() / atoms.tokens();
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let (start, end) = (start * rows_per_token, (start + count) * rows_per_token);
            let (dy, x) = (
                &dy.data()[start * cols..end * cols],
                &x.data()[start * cols..end * cols],
            );
            match self {
                Self::Reference => {
                    reference::rmsnorm::weight_gradient(dy, x, &inverse[start..end], cols)
                }
                Self::Cpu(cpu) => {
                    let mut dw = vec![0.0; cols];
                    let isa = cpu.isa();
                    cpu::rmsnorm::weight_gradient(isa, dy, x, &inverse[start..end], &mut dw);
                    dw
                }
            }
        };
        let sum = tree_sum(atoms.count(), &mut atom, &mut |a, b| self.add_assign(a, &b));
        tensor(&[cols], sum)
    }
}
