//! Lion in place.

use crate::reference::lion::LionStep;
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// Updates value and momentum from the summed gradient. All of one length.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn lion(
        &self,
        step: &LionStep,
        gradient: &Tensor,
        value: &mut Tensor,
        momentum: &mut Tensor,
    ) -> Result<(), KernelError> {
        let lengths = [value.len(), momentum.len()];
        assert_eq!(lengths, [gradient.len(); 2], "lion: lengths");
        if let Self::Cuda(gpu) = self {
            let (value, m) = (value.unique_on(gpu)?, momentum.unique_on(gpu)?);
            return cuda::lion::step(gpu, step, &gradient.on(gpu)?, value, m);
        }
        let gradient = gradient.values()?;
        let (value, m) = (value.values_mut()?, momentum.values_mut()?);
        match self {
            Self::Cpu(cpu) => cpu::lion::step(cpu, step, &gradient, value, m),
            _ => reference::lion::step(step, &gradient, value, m),
        }
        Ok(())
    }
}
