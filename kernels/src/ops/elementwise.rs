//! Sums and scaled sums, element by element.

use super::matmul::tensor;
use super::{Atoms, tree_sum};
use crate::{Device, Tensor, cpu};

impl Device {
    /// `a += b`.
    pub fn add_assign(&self, a: &mut [f32], b: &[f32]) {
        assert_eq!(a.len(), b.len(), "add_assign: lengths");
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    }

    /// `a = fma(factor, b, a)`.
    pub fn scaled_add_assign(&self, a: &mut [f32], factor: f32, b: &[f32]) {
        assert_eq!(a.len(), b.len(), "scaled_add_assign: lengths");
        match self {
            Self::Reference => {
                a.iter_mut()
                    .zip(b)
                    .for_each(|(a, b)| *a = factor.mul_add(*b, *a));
            }
            Self::Cpu(cpu) => cpu::elementwise::scaled_add_assign(cpu.isa(), a, factor, b),
        }
    }

    /// `factor * x`.
    pub fn scaled(&self, x: &Tensor, factor: f32) -> Tensor {
        tensor(x.shape(), x.data().iter().map(|v| v * factor).collect())
    }

    /// Adds `bias` `[n]` to every row of `x` `[m, n]`.
    pub fn add_bias(&self, x: &mut Tensor, bias: &[f32]) {
        assert_eq!(x.rows_cols().1, bias.len(), "add_bias: columns");
        for row in x.data_mut().chunks_exact_mut(bias.len()) {
            self.add_assign(row, bias);
        }
    }

    /// Gradient of a bias `[n]` from dy `[m, n]`: in an atom tokens in order, atoms by the tree.
    pub fn bias_gradient(&self, dy: &Tensor, atoms: &Atoms) -> Tensor {
        let (_, cols) = dy.rows_cols();
        let mut atom = |index: usize| {
            let (start, count) = atoms.range(index);
            let mut sum = vec![0.0; cols];
            for row in dy.data()[start * cols..(start + count) * cols].chunks_exact(cols) {
                self.add_assign(&mut sum, row);
            }
            sum
        };
        let sum = tree_sum(atoms.count(), &mut atom, &mut |a, b| self.add_assign(a, &b));
        tensor(&[cols], sum)
    }
}
