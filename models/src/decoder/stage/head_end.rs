//! The end of the last stage: logits and loss.

use concord_kernels::cuda::MemoryPurpose;
use concord_kernels::ops::Atoms;
use concord_kernels::{KernelError, Tensor};

use super::{Batch, Stage};
use crate::decoder::gradients::Gradients;
use crate::decoder::head::HeadLoss;

impl Stage {
    /// Logits `[m, v]` of hidden states `[m, d]`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    ///
    /// # Panics
    /// On a stage without the head.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, KernelError> {
        let head = self.head.as_ref().expect("only the last stage has logits");
        let device = &self.options.device;
        let precision = self.options.precisions.activations;
        device.on_its_threads(|| {
            let _activations = device.account(MemoryPurpose::Activations);
            head.logits(device, hidden, precision)
        })
    }

    /// The loss of a microbatch, and the gradients of the head where it is trained.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where loss or gradient overflow; [`KernelError::Cuda`] where a
    /// GPU fails.
    ///
    /// # Panics
    /// On a stage without the head.
    pub fn loss(
        &self,
        batch: &Batch,
        hidden: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<HeadLoss, KernelError> {
        let head = self.head.as_ref().expect("only the last stage has a loss");
        let device = &self.options.device;
        let _gradients = device.account(MemoryPurpose::Gradients);
        let targets = device.targets(&batch.targets)?;
        let atoms = Atoms::of(batch.sequences.clone());
        let form = batch.regularization.loss();
        let mut run = self.run(&atoms, None, gradients);
        let mut loss = head.loss(&mut run, hidden, &targets, form)?;
        Tensor::new(&[1], vec![loss.sum])?.check_finite("loss")?;
        device.canonicalise(&mut [("gradient of the loss", &mut loss.d_hidden)])?;
        Ok(loss)
    }

    /// The sum of the losses of a microbatch, as [`Self::loss`] gives it, without gradients.
    ///
    /// # Errors
    /// As [`Self::loss`].
    ///
    /// # Panics
    /// On a stage without the head.
    pub fn loss_alone(&self, batch: &Batch, hidden: &Tensor) -> Result<f32, KernelError> {
        let head = self.head.as_ref().expect("only the last stage has a loss");
        let device = &self.options.device;
        let targets = device.targets(&batch.targets)?;
        let atoms = Atoms::of(batch.sequences.clone());
        let precision = self.options.precisions.activations;
        let form = batch.regularization.loss();
        let sum = head.loss_alone((device, &atoms), precision, hidden, &targets, form)?;
        Tensor::new(&[1], vec![sum])?.check_finite("loss")?;
        Ok(sum)
    }
}
