//! AdamW in place.

use crate::reference::adamw::AdamStep;
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// Updates value and moments from the summed gradient. All of one length.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn adamw(
        &self,
        step: &AdamStep,
        gradient: &Tensor,
        value: &mut Tensor,
        first_moment: &mut Tensor,
        second_moment: &mut Tensor,
    ) -> Result<(), KernelError> {
        let len = gradient.len();
        let lengths = [value.len(), first_moment.len(), second_moment.len()];
        assert_eq!(lengths, [len; 3], "adamw: lengths");
        if let Self::Cuda(gpu) = self {
            let gradient = gradient.on(gpu)?;
            let value = value.unique_on(gpu)?;
            let (m, v) = (first_moment.unique_on(gpu)?, second_moment.unique_on(gpu)?);
            return cuda::adamw::step(gpu, step, &gradient, value, m, v);
        }
        let gradient = gradient.values()?;
        let value = value.values_mut()?;
        let (m, v) = (first_moment.values_mut()?, second_moment.values_mut()?);
        match self {
            Self::Cpu(cpu) => cpu::adamw::step(cpu, step, &gradient, value, m, v),
            _ => reference::adamw::step(step, &gradient, value, m, v),
        }
        Ok(())
    }
}
