//! Gradient descent in place.

use crate::reference::sgd::SgdStep;
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// Updates value and momentum from the summed gradient. All of one length; where the step has
    /// no momentum, that tensor is empty.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn sgd(
        &self,
        step: &SgdStep,
        gradient: &Tensor,
        value: &mut Tensor,
        momentum: &mut Tensor,
    ) -> Result<(), KernelError> {
        let kept = if step.momentum == 0.0 {
            0
        } else {
            gradient.len()
        };
        let lengths = [value.len(), momentum.len()];
        assert_eq!(lengths, [gradient.len(), kept], "sgd: lengths");
        if let Self::Cuda(gpu) = self {
            let (value, m) = (value.unique_on(gpu)?, momentum.unique_on(gpu)?);
            return cuda::sgd::step(gpu, step, &gradient.on(gpu)?, value, m);
        }
        let gradient = gradient.values()?;
        let (value, m) = (value.values_mut()?, momentum.values_mut()?);
        match self {
            Self::Cpu(cpu) => cpu::sgd::step(cpu, step, &gradient, value, m),
            _ => reference::sgd::step(step, &gradient, value, m),
        }
        Ok(())
    }
}
