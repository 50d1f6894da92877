//! Where tensors lie: moving them to the device, and taking rows out of them.

use super::matmul::tensor;
use crate::gpu::{Element, MemoryPurpose, PurposeScope};
use crate::{Buffer, Device, Ids, KernelError, NO_ID, Tensor};

/// Until it is dropped, memory is accounted under a purpose: see [`Device::account`].
#[must_use = "memory is booked under the purpose while this lives"]
pub struct MemoryScope(
    #[expect(dead_code, reason = "its end is what counts")] Option<PurposeScope>,
);

impl Device {
    /// Accounts the memory that this thread allocates, while the result lives, under `purpose`.
    /// Only GPUs keep accounts.
    pub fn account(&self, purpose: MemoryPurpose) -> MemoryScope {
        match self {
            Self::Cuda(gpu) => MemoryScope(Some(gpu.account(purpose))),
            _ => MemoryScope(None),
        }
    }

    /// The tensor, where the device reads it. Nothing is copied if it is there already.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory or lost.
    pub fn place(&self, x: Tensor) -> Result<Tensor, KernelError> {
        match self {
            Self::Cuda(gpu) => tensor(x.shape(), x.on(gpu)?),
            _ => x.into_host(),
        }
    }

    pub(super) fn place_buffer<T: Element>(
        &self,
        buffer: Buffer<T>,
    ) -> Result<Buffer<T>, KernelError> {
        match self {
            Self::Cuda(gpu) => Ok(Buffer::Cuda(buffer.on(gpu)?)),
            _ => Ok(Buffer::Host(buffer.into_values()?)),
        }
    }

    /// Token ids or positions, where the device reads them.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory or lost.
    pub fn ids(&self, ids: &[u32]) -> Result<Ids, KernelError> {
        Ok(Ids(self.place_buffer(Buffer::Host(ids.to_vec()))?))
    }

    /// What each token is to predict, where the device reads it.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory or lost.
    pub fn targets(&self, targets: &[Option<u32>]) -> Result<Ids, KernelError> {
        let ids = targets.iter().map(|target| target.unwrap_or(NO_ID));
        self.ids(&ids.collect::<Vec<_>>())
    }

    /// A tensor of zeros, where the device works on it.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU is out of memory or lost.
    pub fn zeros(&self, shape: &[usize]) -> Result<Tensor, KernelError> {
        match self {
            Self::Cuda(gpu) => tensor(shape, gpu.zeros::<f32>(shape.iter().product())?),
            _ => Ok(Tensor::zeros(shape)),
        }
    }

    /// Overwrites the rows of `x` from `start` on.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn put_rows(&self, x: &mut Tensor, start: usize, rows: &Tensor) -> Result<(), KernelError> {
        let (_, cols) = x.rows_cols();
        assert_eq!(cols, rows.rows_cols().1, "put_rows: columns");
        let at = start * cols;
        if let Self::Cuda(gpu) = self {
            let to = x.unique_on(gpu)?.part(at, rows.len());
            return Ok(gpu.copy(&rows.on(gpu)?, &to)?);
        }
        x.values_mut()?[at..at + rows.len()].copy_from_slice(&rows.values()?);
        Ok(())
    }
}
