//! What only who has computed a leaf knows of it.

use concord_kernels::{KernelError, Tensor};
use concord_proto::{Digest, Domain, WorkerId};

/// The digests of tensors on the way to a leaf's outputs, under a key that is made of a checker's:
/// the claim of the worker has none of them, and those of one checker are of no use to another.
///
/// Of a microbatch these are what enters each layer, what leaves the last one, and the gradients;
/// of a sum, the sum; of the norms, the gradients that they are of; of an update, the new values.
pub(crate) struct Trace {
    key: [u8; 32],
    digests: Vec<Digest>,
}

impl Trace {
    /// Of nothing yet, under the key of a checker.
    pub(crate) fn new(checker: &WorkerId) -> Self {
        Self {
            key: Digest::of(Domain::Trace, &checker.0).0,
            digests: Vec::new(),
        }
    }

    /// Adds a tensor, which is hashed where it lies.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub(super) fn add(&mut self, tensor: &Tensor) -> Result<(), KernelError> {
        let digest = tensor.derived_digest(&self.key, &[])?;
        self.digests.push(Digest(digest));
        Ok(())
    }

    /// Adds several, in order.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(super) fn add_all<'a>(
        &mut self,
        tensors: impl IntoIterator<Item = &'a Tensor>,
    ) -> Result<(), KernelError> {
        tensors.into_iter().try_for_each(|tensor| self.add(tensor))
    }

    /// The digest that a verdict has.
    pub(crate) fn finish(self) -> Digest {
        Digest::of_value(Domain::Trace, &(self.key, self.digests))
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::PublicKey;

    use super::*;

    #[test]
    fn a_trace_depends_on_the_key_the_tensors_and_their_order() {
        let of = |key: u8, values: &[f32]| {
            let mut trace = Trace::new(&PublicKey([key; 32]));
            let tensors = values
                .iter()
                .map(|value| Tensor::new(&[1], vec![*value]).unwrap());
            let tensors: Vec<Tensor> = tensors.collect();
            trace.add_all(&tensors).unwrap();
            trace.finish()
        };
        let first = of(1, &[1.0, 2.0]);
        assert_eq!(first, of(1, &[1.0, 2.0]));
        for other in [
            of(2, &[1.0, 2.0]),
            of(1, &[2.0, 1.0]),
            of(1, &[1.0]),
            of(1, &[]),
        ] {
            assert_ne!(first, other);
        }
    }
}
