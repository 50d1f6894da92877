//! Short sums of fixed shape.

use super::{Atoms, tree_sum};
use crate::{Device, cpu, reference};

impl Device {
    /// `sum(x)`.
    pub fn sum(&self, x: &[f32]) -> f32 {
        match self {
            Self::Reference => reference::reduce::sum(x),
            Self::Cpu(cpu) => cpu::reduce::sum_all(cpu.isa(), x),
        }
    }

    /// `sum(x^2)`.
    pub fn sum_squares(&self, x: &[f32]) -> f32 {
        match self {
            Self::Reference => reference::reduce::dot(x, x),
            Self::Cpu(cpu) => cpu::reduce::sum_squares(cpu.isa(), x),
        }
    }

    /// The losses of all tokens of a microbatch: a short sum over each sequence, sequences by the
    /// tree.
    pub fn loss_sum(&self, losses: &[f32], atoms: &Atoms) -> f32 {
        let len = atoms.sequence_len();
        let mut sequence = |index: usize| self.sum(&losses[index * len..(index + 1) * len]);
        tree_sum(atoms.sequences(), &mut sequence, &mut |a, b| *a += b)
    }
}
