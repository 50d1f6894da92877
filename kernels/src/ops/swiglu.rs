//! SwiGLU. y = silu(g) * u, all of one shape.

use super::matmul::tensor;
use crate::{Device, Tensor, cpu, reference};

impl Device {
    /// y.
    pub fn swiglu(&self, g: &Tensor, u: &Tensor) -> Tensor {
        assert_eq!(g.shape(), u.shape(), "swiglu: shapes");
        let y = match self {
            Self::Reference => reference::swiglu::forward(g.data(), u.data()),
            Self::Cpu(cpu) => cpu::swiglu::forward(cpu, g.data(), u.data()),
        };
        tensor(g.shape(), y)
    }

    /// (dg, du).
    pub fn swiglu_backward(&self, dy: &Tensor, g: &Tensor, u: &Tensor) -> (Tensor, Tensor) {
        assert_eq!(
            (dy.shape(), g.shape()),
            (g.shape(), u.shape()),
            "swiglu_backward: shapes"
        );
        let (dg, du) = match self {
            Self::Reference => reference::swiglu::backward(dy.data(), g.data(), u.data()),
            Self::Cpu(cpu) => cpu::swiglu::backward(cpu, dy.data(), g.data(), u.data()),
        };
        (tensor(g.shape(), dg), tensor(g.shape(), du))
    }
}
