//! AdamW in place, with moments in 8 bits.

use crate::moment::{MomentKind, PackedMoment};
use crate::reference::adamw::AdamStep;
use crate::reference::adamw_8bit::{BLOCK_WORDS, MOMENT_BLOCK};
use crate::{Device, KernelError, Tensor, cpu, cuda, reference};

impl Device {
    /// Updates value and moments from the summed gradient: the moments are decoded, updated in f32,
    /// and coded again. All are of one length. Whether the moments are still finite is left to
    /// [`Self::check_moments`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn adamw_8bit(
        &self,
        step: &AdamStep,
        gradient: &Tensor,
        value: &mut Tensor,
        first_moment: &mut PackedMoment,
        second_moment: &mut PackedMoment,
    ) -> Result<(), KernelError> {
        let len = gradient.len();
        let lengths = [value.len(), first_moment.len(), second_moment.len()];
        assert_eq!(lengths, [len; 3], "adamw_8bit: lengths");
        let kinds = [first_moment.kind(), second_moment.kind()];
        assert_eq!(
            kinds,
            [MomentKind::First, MomentKind::Second],
            "adamw_8bit: moments"
        );
        let (first, second) = (first_moment.buffer_mut(), second_moment.buffer_mut());
        if let Self::Cuda(gpu) = self {
            let gradient = gradient.on(gpu)?;
            let value = value.unique_on(gpu)?;
            let (first, second) = (first.unique_on(gpu)?, second.unique_on(gpu)?);
            return cuda::adamw_8bit::step(gpu, step, &gradient, value, first, second);
        }
        let gradient = gradient.values()?;
        let value = value.values_mut()?;
        let (first, second) = (first.values_mut()?, second.values_mut()?);
        match self {
            Self::Cpu(cpu) => cpu::adamw_8bit::step(cpu, step, &gradient, value, first, second),
            _ => reference::adamw_8bit::step(step, &gradient, value, first, second),
        }
        Ok(())
    }

    /// Refuses moments with a number that is not finite, as must be done before hashing.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`], naming the first bad moment, the first number of its first bad
    /// block, and the scale of that block; [`KernelError::Cuda`] where a GPU fails.
    pub fn check_moments(&self, moments: &[(&str, &PackedMoment)]) -> Result<(), KernelError> {
        let found = if let Self::Cuda(gpu) = self {
            let words = moments.iter().map(|(_, moment)| moment.buffer().on(gpu));
            cuda::adamw_8bit::check(gpu, &words.collect::<Result<Vec<_>, _>>()?)?
        } else {
            let first = |(_, moment): &(&str, &PackedMoment)| Ok(first_bad(&moment.words()?));
            moments
                .iter()
                .map(first)
                .collect::<Result<_, KernelError>>()?
        };
        let mut bad = moments.iter().zip(found);
        let bad = bad.find_map(|(named, block)| Some((named, block?)));
        let Some(((name, moment), block)) = bad else {
            return Ok(());
        };
        let scale = moment.buffer().part(block * BLOCK_WORDS, 1);
        Err(KernelError::NotFinite {
            tensor: name.to_string(),
            index: block * MOMENT_BLOCK,
            value: f32::from_bits(scale.values()?[0]),
        })
    }

    /// The moment, where the device reads it. Nothing is copied if it is there already.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory or lost.
    pub fn place_moment(&self, moment: PackedMoment) -> Result<PackedMoment, KernelError> {
        moment.map_buffer(|words| self.place_buffer(words))
    }
}

/// The first block whose scale is not finite.
fn first_bad(words: &[u32]) -> Option<usize> {
    let mut scales = words.iter().step_by(BLOCK_WORDS);
    scales.position(|&scale| scale >= f32::INFINITY.to_bits())
}
