//! SwiGLU. y = silu(g) * u, all of one shape.

use super::matmul::tensor;
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// y.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn swiglu(&self, g: &Tensor, u: &Tensor) -> Result<Tensor, KernelError> {
        assert_eq!(g.shape(), u.shape(), "swiglu: shapes");
        if let Self::Cuda(gpu) = self {
            let y = cuda::swiglu::forward(gpu, &g.on(gpu)?, &u.on(gpu)?)?;
            return tensor(g.shape(), y);
        }
        let (gate, up) = (g.values()?, u.values()?);
        let y = match self {
            Self::Cpu(cpu) => cpu::swiglu::forward(cpu, &gate, &up),
            _ => reference::swiglu::forward(&gate, &up),
        };
        tensor(g.shape(), y)
    }

    /// (dg, du).
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn swiglu_backward(
        &self,
        dy: &Tensor,
        g: &Tensor,
        u: &Tensor,
    ) -> Result<(Tensor, Tensor), KernelError> {
        assert_eq!(
            (dy.shape(), g.shape()),
            (g.shape(), u.shape()),
            "swiglu_backward: shapes"
        );
        if let Self::Cuda(gpu) = self {
            let (dg, du) = cuda::swiglu::backward(gpu, &dy.on(gpu)?, &g.on(gpu)?, &u.on(gpu)?)?;
            return Ok((tensor(g.shape(), dg)?, tensor(g.shape(), du)?));
        }
        let (dy, gate, up) = (dy.values()?, g.values()?, u.values()?);
        let (dg, du) = match self {
            Self::Cpu(cpu) => cpu::swiglu::backward(cpu, &dy, &gate, &up),
            _ => reference::swiglu::backward(&dy, &gate, &up),
        };
        Ok((tensor(g.shape(), dg)?, tensor(g.shape(), du)?))
    }
}
