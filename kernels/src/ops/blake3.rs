//! BLAKE3 digests of elements.

use blake3::hazmat::HasherExt;

use crate::{Buffer, KernelError, Tensor, cuda};

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
        match self.elements() {
            Buffer::Host(elements) => {
                let mut hasher = blake3::Hasher::new_from_context_key(context_key);
                hasher.update(prefix);
                hasher.update(bytemuck::cast_slice(elements));
                Ok(*hasher.finalize().as_bytes())
            }
            Buffer::Cuda(slice) => cuda::blake3::derived(slice, context_key, prefix),
        }
    }
}
