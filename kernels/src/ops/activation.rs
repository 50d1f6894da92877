//! Activations, alone and as gates: y = act(g) * u, all of one shape.

use super::matmul::tensor;
use crate::reference::activation::Activation;
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// `act(g) * u`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn gated(&self, g: &Tensor, u: &Tensor, act: Activation) -> Result<Tensor, KernelError> {
        assert_eq!(g.shape(), u.shape(), "gated: shapes");
        if let Self::Cuda(gpu) = self {
            let y = cuda::activation::gated(gpu, act, &g.on(gpu)?, &u.on(gpu)?)?;
            return tensor(g.shape(), y);
        }
        let (gate, up) = (g.values()?, u.values()?);
        let y = match self {
            Self::Cpu(cpu) => cpu::activation::gated(cpu, act, &gate, &up),
            _ => reference::activation::gated(act, &gate, &up),
        };
        tensor(g.shape(), y)
    }

    /// (dg, du) of [`Self::gated`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn gated_backward(
        &self,
        dy: &Tensor,
        g: &Tensor,
        u: &Tensor,
        act: Activation,
    ) -> Result<(Tensor, Tensor), KernelError> {
        assert_eq!(
            (dy.shape(), g.shape()),
            (g.shape(), u.shape()),
            "gated_backward: shapes"
        );
        if let Self::Cuda(gpu) = self {
            let (dy, gate, up) = (dy.on(gpu)?, g.on(gpu)?, u.on(gpu)?);
            let (dg, du) = cuda::activation::gated_backward(gpu, act, &dy, &gate, &up)?;
            return Ok((tensor(g.shape(), dg)?, tensor(g.shape(), du)?));
        }
        let (dy, gate, up) = (dy.values()?, g.values()?, u.values()?);
        let (dg, du) = match self {
            Self::Cpu(cpu) => cpu::activation::gated_backward(cpu, act, &dy, &gate, &up),
            _ => reference::activation::gated_backward(act, &dy, &gate, &up),
        };
        Ok((tensor(g.shape(), dg)?, tensor(g.shape(), du)?))
    }

    /// SwiGLU: [`Self::gated`] by [`Activation::Silu`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn swiglu(&self, g: &Tensor, u: &Tensor) -> Result<Tensor, KernelError> {
        self.gated(g, u, Activation::Silu)
    }

    /// (dg, du) of [`Self::swiglu`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn swiglu_backward(
        &self,
        dy: &Tensor,
        g: &Tensor,
        u: &Tensor,
    ) -> Result<(Tensor, Tensor), KernelError> {
        self.gated_backward(dy, g, u, Activation::Silu)
    }

    /// `act(x)`, without a gate.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn activation(&self, x: &Tensor, act: Activation) -> Result<Tensor, KernelError> {
        if let Self::Cuda(gpu) = self {
            return tensor(x.shape(), cuda::activation::forward(gpu, act, &x.on(gpu)?)?);
        }
        let values = x.values()?;
        let y = match self {
            Self::Cpu(cpu) => cpu::activation::forward(cpu, act, &values),
            _ => reference::activation::forward(act, &values),
        };
        tensor(x.shape(), y)
    }

    /// dx of [`Self::activation`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn activation_backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        act: Activation,
    ) -> Result<Tensor, KernelError> {
        assert_eq!(dy.shape(), x.shape(), "activation_backward: shapes");
        if let Self::Cuda(gpu) = self {
            let dx = cuda::activation::backward(gpu, act, &dy.on(gpu)?, &x.on(gpu)?)?;
            return tensor(x.shape(), dx);
        }
        let (dy, values) = (dy.values()?, x.values()?);
        let dx = match self {
            Self::Cpu(cpu) => cpu::activation::backward(cpu, act, &dy, &values),
            _ => reference::activation::backward(act, &dy, &values),
        };
        tensor(x.shape(), dx)
    }
}
