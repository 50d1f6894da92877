//! An RMSNorm with its weight.

use concord_kernels::{Device, KernelError, Tensor};

use super::gradients::TensorUse;
use super::linear::Backward;

/// A norm of a stage.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) weight: Tensor, // [d]
    pub(super) eps: f32,
    pub(super) name: String,
    pub(super) trains: bool,
}

impl Norm {
    /// y of the shape of x, and the inverse norms.
    pub(super) fn forward(
        &self,
        device: &Device,
        x: &Tensor,
    ) -> Result<(Tensor, Tensor), KernelError> {
        device.rmsnorm(x, &self.weight, self.eps)
    }

    /// dx of the shape of x; the weight's gradient where it is trained.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Tensor,
        inverse: &Tensor,
    ) -> Result<Tensor, KernelError> {
        self.weight_gradient(run, dy, x, inverse)?;
        run.device.rmsnorm_dx(dy, x, &self.weight, inverse)
    }

    /// The weight's gradient alone.
    pub(super) fn weight_gradient(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Tensor,
        inverse: &Tensor,
    ) -> Result<(), KernelError> {
        if self.trains {
            let width = self.weight.len();
            let dw = run.device.rmsnorm_dw(dy, x, inverse, width, run.atoms)?;
            run.gradients.insert(&self.name, TensorUse::Own, dw);
        }
        Ok(())
    }
}
