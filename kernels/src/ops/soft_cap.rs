//! Soft caps: y = cap * tanh(x / cap), of attention scores and of logits.

use super::cross_entropy::host_targets;
use super::matmul::tensor;
use crate::{Device, Ids, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// `cap * tanh(x / cap)`; the cap is above 0.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn soft_cap(&self, x: &Tensor, cap: f32) -> Result<Tensor, KernelError> {
        if let Self::Cuda(gpu) = self {
            return tensor(x.shape(), cuda::soft_cap::forward(gpu, &x.on(gpu)?, cap)?);
        }
        let values = x.values()?;
        let y = match self {
            Self::Cpu(cpu) => cpu::soft_cap::forward(cpu, &values, cap),
            _ => reference::soft_cap::forward(&values, cap),
        };
        tensor(x.shape(), y)
    }

    /// dx, from dy and what [`Self::soft_cap`] gave: `dy * (1 - (y / cap)^2)`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn soft_cap_backward(
        &self,
        dy: &Tensor,
        y: &Tensor,
        cap: f32,
    ) -> Result<Tensor, KernelError> {
        assert_eq!(dy.shape(), y.shape(), "soft_cap_backward: shapes");
        if let Self::Cuda(gpu) = self {
            let dx = cuda::soft_cap::backward(gpu, &dy.on(gpu)?, &y.on(gpu)?, cap)?;
            return tensor(dy.shape(), dx);
        }
        let (values, y) = (dy.values()?, y.values()?);
        let dx = match self {
            Self::Cpu(cpu) => cpu::soft_cap::backward(cpu, &values, &y, cap),
            _ => reference::soft_cap::backward(&values, &y, cap),
        };
        tensor(dy.shape(), dx)
    }

    /// `1 - (y / cap)^2` at each row's target among capped logits y `[m, vocab]`: `[m]`, 0 for a
    /// row without one. It is what [`Self::head_dx`] and [`Self::take_targets`] weigh the one-hot
    /// part of a capped head by.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn soft_cap_targets(
        &self,
        y: &Tensor,
        targets: &Ids,
        cap: f32,
    ) -> Result<Tensor, KernelError> {
        let (rows, vocab) = y.rows_cols();
        assert_eq!(rows, targets.len(), "soft_cap_targets: rows");
        if let Self::Cuda(gpu) = self {
            let (y, targets) = (y.on(gpu)?, targets.on(gpu)?);
            let slopes = cuda::soft_cap::at_targets(gpu, &y, vocab, &targets, cap)?;
            return tensor(&[rows], slopes);
        }
        let (y, targets) = (y.values()?, host_targets(targets)?);
        let slopes = reference::soft_cap::at_targets(&y, vocab, &targets, cap);
        tensor(&[rows], slopes)
    }
}
