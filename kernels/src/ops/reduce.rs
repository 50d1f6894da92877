//! Short sums of fixed shape.

use crate::reference::tree::{Atoms, tree_sum};
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// `sum(x)`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn sum(&self, x: &Tensor) -> Result<f32, KernelError> {
        match self {
            Self::Reference => Ok(reference::reduce::sum(&x.values()?)),
            Self::Cpu(cpu) => Ok(cpu::reduce::sum_all(cpu.isa(), &x.values()?)),
            Self::Cuda(gpu) => cuda::reduce::sum(gpu, &x.on(gpu)?),
        }
    }

    /// `sum(x^2)` of each tensor.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn sum_squares(&self, tensors: &[&Tensor]) -> Result<Vec<f32>, KernelError> {
        let on_host = |sum: &dyn Fn(&[f32]) -> f32| {
            let sums = tensors.iter().map(|x| Ok(sum(&x.values()?)));
            sums.collect()
        };
        match self {
            Self::Reference => on_host(&|x| reference::reduce::dot(x, x)),
            Self::Cpu(cpu) => on_host(&|x| cpu::reduce::sum_squares(cpu.isa(), x)),
            Self::Cuda(gpu) => {
                let slices = tensors
                    .iter()
                    .map(|x| x.on(gpu))
                    .collect::<Result<Vec<_>, _>>()?;
                cuda::reduce::sum_squares(gpu, &slices)
            }
        }
    }

    /// The losses of all tokens of a microbatch: a short sum over each sequence, sequences by the
    /// tree.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn loss_sum(&self, losses: &Tensor, atoms: &Atoms) -> Result<f32, KernelError> {
        // As many numbers as tokens: fetching them costs what fetching their sum does.
        let losses = losses.values()?;
        let sequences: Vec<_> = atoms.sequences().ranges().collect();
        let mut sequence = |index: usize| reference::reduce::sum(&losses[sequences[index].clone()]);
        Ok(tree_sum(sequences.len(), &mut sequence, &mut |a, b| {
            *a += b
        }))
    }
}
