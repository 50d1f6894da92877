//! Lion in place, with its momentum in 8 bits.

use crate::moment::{MomentKind, PackedMoment};
use crate::reference::lion::LionStep;
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// Updates value and momentum from the summed gradient: the momentum is decoded, updated in
    /// f32, and coded again. All are of one length. Whether the momentum is still finite is left to
    /// [`Self::check_moments`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn lion_8bit(
        &self,
        step: &LionStep,
        gradient: &Tensor,
        value: &mut Tensor,
        momentum: &mut PackedMoment,
    ) -> Result<(), KernelError> {
        let lengths = [value.len(), momentum.len()];
        assert_eq!(lengths, [gradient.len(); 2], "lion_8bit: lengths");
        assert_eq!(momentum.kind(), MomentKind::First, "lion_8bit: momentum");
        let momentum = momentum.buffer_mut();
        if let Self::Cuda(gpu) = self {
            let (value, momentum) = (value.unique_on(gpu)?, momentum.unique_on(gpu)?);
            return cuda::lion_8bit::step(gpu, step, &gradient.on(gpu)?, value, momentum);
        }
        let gradient = gradient.values()?;
        let (value, momentum) = (value.values_mut()?, momentum.values_mut()?);
        match self {
            Self::Cpu(cpu) => cpu::lion_8bit::step(cpu, step, &gradient, value, momentum),
            _ => reference::lion_8bit::step(step, &gradient, value, momentum),
        }
        Ok(())
    }
}
