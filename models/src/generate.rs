//! Generation by a whole model: prefill, then one token at a time from the cache.

use concord_kernels::KernelError;
use concord_kernels::ops::sample::Sampling;

use crate::decoder::{KvCache, Stage, StageInput};

/// One growing sequence. Its tokens are a function of model, prompt and sampling alone.
#[derive(Debug)]
pub struct Generator<'a> {
    stage: &'a Stage,
    cache: KvCache,
    sampling: Sampling,
}

impl<'a> Generator<'a> {
    /// A new sequence on a stage that holds the whole model.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    ///
    /// # Panics
    /// On a stage that lacks the embedding or the head.
    pub fn new(stage: &'a Stage, sampling: Sampling) -> Result<Self, KernelError> {
        assert!(
            stage.is_first() && stage.is_last(),
            "generation needs the whole model"
        );
        Ok(Self {
            stage,
            cache: stage.cache()?,
            sampling,
        })
    }

    /// Tokens so far, which is the position of the next one.
    pub fn position(&self) -> usize {
        self.cache.tokens()
    }

    /// Computes `tokens` (first the prompt, later the token that was drawn last) and draws the next
    /// one.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where the model overflows; [`KernelError::Cuda`] where a GPU
    /// fails.
    ///
    /// # Panics
    /// Where `tokens` is empty.
    pub fn next(&mut self, tokens: &[u32]) -> Result<u32, KernelError> {
        assert!(
            !tokens.is_empty(),
            "a generator needs a token to go on from"
        );
        let device = &self.stage.options().device;
        let hidden = self
            .stage
            .extend(&mut self.cache, tokens, StageInput::Tokens)?;
        let mut logits = self.stage.logits(&hidden.rows(tokens.len() - 1, 1))?;
        // Only to check for NaN and infinity: a draw treats -0 and +0 alike.
        device.canonicalise(&mut [("logits", &mut logits)])?;
        device.sample(&logits, &self.sampling, self.cache.tokens() as u64)
    }
}
