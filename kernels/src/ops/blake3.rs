//! BLAKE3 digests of elements.

use blake3::hazmat::HasherExt;

use crate::gpu::Element;
use crate::{Buffer, KernelError, PackedMoment, Tensor, cuda};

impl Tensor {
    /// The BLAKE3 digest of `prefix` and the elements as little-endian bytes, in the key-derivation
    /// mode, where `context_key` is the digest of the context. The digest of a tensor on a GPU is
    /// computed there.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn derived_digest(
        &self,
        context_key: &[u8; 32],
        prefix: &[u8],
    ) -> Result<[u8; 32], KernelError> {
        derived_digest(self.elements(), context_key, prefix)
    }
}

impl PackedMoment {
    /// As [`Tensor::derived_digest`], of the words.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where the GPU is lost.
    pub fn derived_digest(
        &self,
        context_key: &[u8; 32],
        prefix: &[u8],
    ) -> Result<[u8; 32], KernelError> {
        derived_digest(self.buffer(), context_key, prefix)
    }
}

fn derived_digest<T: Element>(
    elements: &Buffer<T>,
    context_key: &[u8; 32],
    prefix: &[u8],
) -> Result<[u8; 32], KernelError> {
    match elements {
        Buffer::Host(elements) => {
            let mut hasher = blake3::Hasher::new_from_context_key(context_key);
            hasher.update(prefix);
            hasher.update(bytemuck::cast_slice(elements));
            Ok(*hasher.finalize().as_bytes())
        }
        Buffer::Cuda(slice) => cuda::blake3::derived(slice, context_key, prefix),
    }
}
