//! An RMSNorm with its weight.

use concord_kernels::{Device, Tensor};

use super::gradients::End;
use super::linear::Backward;

/// A norm of a stage.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) eps: f32,
    pub(super) name: String,
    pub(super) trains: bool,
}

impl Norm {
    /// y of the shape of x, and the inverse norms.
    pub(super) fn forward(&self, device: &Device, x: &Tensor) -> (Tensor, Vec<f32>) {
        device.rmsnorm(x, &self.weight, self.eps)
    }

    /// dx of the shape of x; the weight's gradient where it is trained.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Tensor,
        inverse: &[f32],
    ) -> Tensor {
        self.weight_gradient(run, dy, x, inverse);
        run.device.rmsnorm_dx(dy, x, &self.weight, inverse)
    }

    /// The weight's gradient alone.
    pub(super) fn weight_gradient(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Tensor,
        inverse: &[f32],
    ) {
        if self.trains {
            let dw = run
                .device
                .rmsnorm_dw(dy, x, inverse, self.weight.len(), run.atoms);
            run.gradients.insert(&self.name, End::Own, dw);
        }
    }
}
