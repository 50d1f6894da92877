//! What is needed to read data sets for one model.

use concord_text::{ChatTemplate, TextTokenizer};

use crate::error::DataError;
use crate::source::DatasetSource;

/// Reads data sets for one model, into sequences.
pub struct DataLoader<'a> {
    /// The model's tokenizer; needed for all types but `tokens`.
    pub tokenizer: Option<&'a TextTokenizer>,
    /// The model's chat template, if it has one; needed for conversations.
    pub chat_template: Option<&'a ChatTemplate>,
    /// Embeddings of the model: ids are below.
    pub vocab: usize,
    /// Positions that the model knows.
    pub max_positions: usize,
    /// Tokens that end a text by the model's configuration, for a tokenizer that names none.
    pub eos: &'a [u32],
    /// Tokens of a sequence.
    pub sequence_len: u32,
    /// Called with the number of bytes that were read since the previous call.
    pub progress: &'a mut dyn FnMut(u64),
}

impl<'a> DataLoader<'a> {
    /// The tokenizer that `source` needs.
    pub(crate) fn tokenizer(&self, source: &DatasetSource) -> Result<&'a TextTokenizer, DataError> {
        self.tokenizer.ok_or_else(|| {
            source.fail(format!(
                "type `{}` needs the model's tokenizer",
                source.kind.name()
            ))
        })
    }

    /// The token that ends a text.
    pub(crate) fn end_of_text(&self) -> Option<u32> {
        let named = self
            .tokenizer
            .and_then(|tokenizer| tokenizer.eos_ids().first());
        named.or(self.eos.first()).copied()
    }

    /// The same, for a kind that cannot do without.
    pub(crate) fn needed_end(&self, source: &DatasetSource) -> Result<u32, DataError> {
        self.end_of_text().ok_or_else(|| {
            source.fail(format!(
                "type `{}` needs an end-of-text token: neither tokenizer_config.json (eos_token) \
                 nor config.json (eos_token_id) names one",
                source.kind.name()
            ))
        })
    }
}
