//! Grammars over the tokens of the served model.

use std::sync::{Arc, OnceLock};

use concord_text::{Grammar, Guide, GuideFactory, TextTokenizer};

use crate::api_error::ApiError;

/// Built when the first request has a grammar, because it takes a second for a large vocabulary.
pub(crate) struct Guides {
    tokenizer: Arc<TextTokenizer>,
    vocab: u32,
    factory: OnceLock<Result<GuideFactory, String>>,
}

impl Guides {
    pub fn new(tokenizer: Arc<TextTokenizer>, vocab: u32) -> Self {
        Self {
            tokenizer,
            vocab,
            factory: OnceLock::new(),
        }
    }

    /// A guide for one answer, which may be cloned for others. Slow: must not run on an async
    /// thread.
    ///
    /// # Errors
    /// A 400 that names `param`, the field from which the grammar comes.
    pub fn start(
        &self,
        grammar: &Grammar,
        stop_tokens: &[u32],
        param: &str,
    ) -> Result<Guide, ApiError> {
        let factory = self.factory.get_or_init(|| {
            GuideFactory::new(&self.tokenizer, self.vocab).map_err(|error| error.to_string())
        });
        let factory = factory.as_ref().map_err(|reason| {
            let message = format!("This model's tokenizer takes no grammars: {reason}.");
            ApiError::param(param, message)
        })?;
        let refuse = |error| ApiError::param(param, format!("{error}."));
        let mut guide = factory.start(grammar, stop_tokens).map_err(refuse)?;
        // A grammar that no answer can begin with is the client's fault, not the pool's.
        guide.allowed().map_err(refuse)?;
        Ok(guide)
    }
}
