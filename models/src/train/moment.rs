//! A moment of the optimizer, in the form that the job says.

use std::sync::Arc;

use concord_kernels::{Device, KernelError, MomentKind, PackedMoment, Tensor};

/// How moments are kept between two steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentForm {
    /// Numbers as f32.
    #[default]
    F32,
    /// Codes of 8 bits with a scale for each block of 256: [`PackedMoment`].
    Bits8,
    /// The first alone, as f32; the second is empty.
    FirstF32,
    /// The first alone, as [`Self::Bits8`] has it; the second is empty.
    FirstBits8,
    /// Both are empty.
    Neither,
}

impl MomentForm {
    /// Whether a moment is kept. One that is not has no elements.
    pub fn keeps(self, kind: MomentKind) -> bool {
        match self {
            Self::F32 | Self::Bits8 => true,
            Self::FirstF32 | Self::FirstBits8 => kind == MomentKind::First,
            Self::Neither => false,
        }
    }

    /// Whether moments are codes of 8 bits, the empty ones too.
    pub fn is_packed(self) -> bool {
        matches!(self, Self::Bits8 | Self::FirstBits8)
    }

    /// Bytes of both moments of `elements` numbers, to a block.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            Self::F32 => 2 * 4 * elements,
            Self::FirstF32 => 4 * elements,
            Self::Neither => 0,
            Self::Bits8 => 2 * (elements + elements.div_ceil(64)),
            Self::FirstBits8 => elements + elements.div_ceil(64),
        }
    }
}

/// A moment of a trained tensor. Its parts are shared, so that an old state can be kept while a new
/// one is computed.
#[derive(Clone, Debug, PartialEq)]
pub enum Moment {
    /// As f32, in the shape of the tensor; of the shape `[0]` where it is not kept.
    F32(Arc<Tensor>),
    /// Of [`MomentForm::Bits8`] and [`MomentForm::FirstBits8`].
    Packed(Arc<PackedMoment>),
}

impl Moment {
    /// A moment of zeros for a tensor of `shape`, on the host.
    pub fn zeros(form: MomentForm, kind: MomentKind, shape: &[usize]) -> Self {
        let shape = if form.keeps(kind) { shape } else { &[0] };
        match form.is_packed() {
            false => Self::F32(Arc::new(Tensor::zeros(shape))),
            true => Self::Packed(Arc::new(PackedMoment::zeros(kind, shape))),
        }
    }

    /// The moment in the memory of `device`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn placed(self, device: &Device) -> Result<Self, KernelError> {
        Ok(match self {
            Self::F32(numbers) => Self::F32(Arc::new(device.place(Arc::unwrap_or_clone(numbers))?)),
            Self::Packed(moment) => {
                let moment = Arc::unwrap_or_clone(moment);
                Self::Packed(Arc::new(device.place_moment(moment)?))
            }
        })
    }

    /// Its bytes, little-endian: of the numbers as f32, or of the words of a [`PackedMoment`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn bytes(&self) -> Result<Vec<u8>, KernelError> {
        Ok(match self {
            Self::F32(numbers) => bytes_of(numbers.values()?.iter().map(|v| v.to_le_bytes())),
            Self::Packed(moment) => bytes_of(moment.words()?.iter().map(|v| v.to_le_bytes())),
        })
    }
}

fn bytes_of(words: impl Iterator<Item = [u8; 4]>) -> Vec<u8> {
    words.flatten().collect()
}
