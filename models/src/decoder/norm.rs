//! A norm with its weight.

use concord_kernels::{Device, KernelError, Tensor};

use super::gradients::TensorUse;
use super::linear::Backward;
use crate::config::NormKind;

/// A norm of a stage.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) kind: NormKind,
    /// The factor, `[d]`; for [`NormKind::RmsPlusOne`] it is 1 + w.
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>, // [d]
    pub(super) eps: f32,
    pub(super) name: String,
    pub(super) bias_name: String,
    pub(super) trains: bool,
}

/// What the backward pass of a norm needs beyond its input: one or two numbers for each row.
#[derive(Debug)]
pub(super) struct NormTape {
    /// Only for a LayerNorm.
    mean: Option<Tensor>,
    inverse: Tensor,
}

impl Norm {
    /// The factor, `[d]`, from the weight in the file.
    pub(super) fn effective(
        device: &Device,
        kind: NormKind,
        value: &Tensor,
    ) -> Result<Tensor, KernelError> {
        let mut weight = device.place(value.clone())?;
        if kind == NormKind::RmsPlusOne {
            let ones = Tensor::new(value.shape(), vec![1.0; value.len()])?;
            device.add_assign(&mut weight, &device.place(ones)?)?;
        }
        Ok(weight)
    }

    /// y of the shape of x.
    pub(super) fn forward(
        &self,
        device: &Device,
        x: &Tensor,
    ) -> Result<(Tensor, NormTape), KernelError> {
        if matches!(self.kind, NormKind::Rms | NormKind::RmsPlusOne) {
            let (y, inverse) = device.rmsnorm(x, &self.weight, self.eps)?;
            let mean = None;
            return Ok((y, NormTape { mean, inverse }));
        }
        let (y, mean, inverse) = device.layernorm(x, &self.weight, self.bias.as_ref(), self.eps)?;
        let mean = Some(mean);
        Ok((y, NormTape { mean, inverse }))
    }

    /// dx, of the shape of x; adds the gradient of the weight where it is trained.
    pub(super) fn backward(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Tensor,
        tape: &NormTape,
    ) -> Result<Tensor, KernelError> {
        self.weight_gradient(run, dy, x, tape)?;
        let inverse = &tape.inverse;
        match &tape.mean {
            None => run.device.rmsnorm_dx(dy, x, &self.weight, inverse),
            Some(mean) => run.device.layernorm_dx(dy, x, &self.weight, mean, inverse),
        }
    }

    /// Adds the gradients of weight and bias. The gradient of w is that of 1 + w.
    pub(super) fn weight_gradient(
        &self,
        run: &mut Backward<'_>,
        dy: &Tensor,
        x: &Tensor,
        tape: &NormTape,
    ) -> Result<(), KernelError> {
        if !self.trains {
            return Ok(());
        }
        let (device, width, inverse) = (run.device, self.weight.len(), &tape.inverse);
        let dw = match &tape.mean {
            None => device.rmsnorm_dw(dy, x, inverse, width, run.atoms)?,
            Some(mean) => device.layernorm_dw(dy, x, mean, inverse, width, run.atoms)?,
        };
        run.gradients.insert(&self.name, TensorUse::Own, dw);
        if self.bias.is_some() {
            let db = device.bias_gradient(dy, run.atoms)?;
            run.gradients.insert(&self.bias_name, TensorUse::Own, db);
        }
        Ok(())
    }
}
