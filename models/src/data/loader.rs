//! What is needed to read data sets: tokenizer, configuration and sequence length.

use super::DatasetSource;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use concord_text::TextTokenizer;

/// Reads data sets for one model, into sequences of one length.
pub struct DataLoader<'a> {
    /// The model's tokenizer; needed for all types but `tokens`.
    pub tokenizer: Option<&'a TextTokenizer>,
    /// The model's configuration.
    pub config: &'a DecoderConfig,
    /// Tokens of a sequence.
    pub sequence_len: u32,
    /// Called with the number of bytes that were read since the previous call.
    pub progress: &'a mut dyn FnMut(u64),
}

impl<'a> DataLoader<'a> {
    /// The tokenizer that `source` needs.
    pub(super) fn tokenizer(
        &self,
        source: &DatasetSource,
    ) -> Result<&'a TextTokenizer, ModelError> {
        self.tokenizer.ok_or_else(|| {
            source.fail(format!(
                "type `{}` needs the model's tokenizer",
                source.kind.name()
            ))
        })
    }

    /// The token that ends a text.
    pub(super) fn end_of_text(&self) -> Option<u32> {
        let named = self
            .tokenizer
            .and_then(|tokenizer| tokenizer.eos_ids().first());
        named.or(self.config.eos.first()).copied()
    }
}
