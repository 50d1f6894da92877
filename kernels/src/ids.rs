//! Token ids, positions and targets, where a device reads them.

use std::borrow::Cow;

use crate::gpu::{Cuda, Slice};
use crate::{Buffer, KernelError};

/// Stands for "no target".
pub const NO_ID: u32 = u32::MAX;

/// A list of token ids, positions or targets ([`NO_ID`] where a token has none), placed once for
/// all operations that read it: see [`Device::ids`](crate::Device::ids).
#[derive(Clone, Debug)]
pub struct Ids(pub(crate) Buffer<u32>);

impl Ids {
    /// Number of ids.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Ids `[start, start + count)`.
    pub fn part(&self, start: usize, count: usize) -> Self {
        Self(self.0.part(start, count))
    }

    /// The ids, on the host.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn values(&self) -> Result<Cow<'_, [u32]>, KernelError> {
        self.0.values()
    }

    /// The ids in the memory of `cuda`.
    pub(crate) fn on(&self, cuda: &Cuda) -> Result<Slice<u32>, KernelError> {
        self.0.on(cuda)
    }
}
