//! Text from a whole model: prefill, then one token at a time from the cache.

use concord_kernels::ops::sample::{Sampling, sample};
use concord_kernels::{KernelError, Tensor};

use crate::decoder::{KvCache, Stage, StageInput};

/// One sequence that grows. The tokens are a function of prompt, sampling and position alone.
#[derive(Debug)]
pub struct Generator<'a> {
    stage: &'a Stage,
    cache: KvCache,
    sampling: Sampling,
}

impl<'a> Generator<'a> {
    /// A new sequence on a stage that holds the whole model.
    ///
    /// # Panics
    /// On a stage that lacks the embedding or the head.
    pub fn new(stage: &'a Stage, sampling: Sampling) -> Self {
        assert!(
            stage.is_first() && stage.is_last(),
            "generation needs the whole model"
        );
        Self {
            stage,
            cache: stage.cache(),
            sampling,
        }
    }

    /// Tokens so far: the position of the next.
    pub fn position(&self) -> usize {
        self.cache.tokens()
    }

    /// Feeds `tokens` (the prompt at first, then the token drawn last) and draws the next one.
    ///
    /// # Errors
    /// [`KernelError::NotFinite`] where the model overflows.
    ///
    /// # Panics
    /// For no tokens.
    pub fn next(&mut self, tokens: &[u32]) -> Result<u32, KernelError> {
        assert!(
            !tokens.is_empty(),
            "a generator needs a token to go on from"
        );
        let hidden = self
            .stage
            .extend(&mut self.cache, tokens, StageInput::Tokens)?;
        let (_, width) = hidden.rows_cols();
        let last = hidden.data()[hidden.data().len() - width..].to_vec();
        let logits = self.stage.logits(&Tensor::new(&[1, width], last)?);
        logits.check_finite("logits")?;
        Ok(sample(
            logits.data(),
            &self.sampling,
            self.cache.tokens() as u64,
        ))
    }
}
