//! Reads the data sets of a job into sequences.

use std::ops::Range;

use super::{DataLoader, DatasetKind, DatasetSource, Sequences, instruct, text, tokens};
use crate::config::DecoderConfig;
use crate::error::ModelError;
use concord_text::TextTokenizer;

/// Sequences, and the data sets that they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Indices of the data sets: one, or consecutive ones of type `text`.
    pub sources: Range<usize>,
    /// Never empty.
    pub sequences: Sequences,
}

impl DataLoader<'_> {
    /// Reads data sets, in their order. Consecutive ones of type `text` are one stream of
    /// documents.
    ///
    /// The end-of-text token of `text` and `instruct` is the tokenizer's, or else the model's
    /// first.
    ///
    /// # Errors
    /// [`ModelError`] naming the file, and the line where there is one; never an empty result.
    pub fn load(&mut self, sources: &[DatasetSource]) -> Result<Vec<Loaded>, ModelError> {
        let mut loaded = Vec::new();
        let mut start = 0;
        let joins = |a: &DatasetSource, b: &DatasetSource| {
            a.kind == DatasetKind::Text && b.kind == DatasetKind::Text
        };
        for run in sources.chunk_by(joins) {
            loaded.push(Loaded {
                sources: start..start + run.len(),
                sequences: self.load_run(run)?,
            });
            start += run.len();
        }
        Ok(loaded)
    }

    fn load_run(&mut self, run: &[DatasetSource]) -> Result<Sequences, ModelError> {
        let (source, len) = (&run[0], self.sequence_len);
        if len as usize > self.config.max_positions {
            return Err(ModelError::SequenceTooLong {
                asked: len,
                max: self.config.max_positions,
            });
        }
        if len < 2 {
            return Err(source.fail(format!(
                "sequence_len is {len}, but predicting takes at least 2 tokens"
            )));
        }
        if source.kind != DatasetKind::Tokens {
            run.iter().try_for_each(DatasetSource::check_path)?;
        }
        let sequences = match source.kind {
            DatasetKind::Text => text::load(run, self)?,
            DatasetKind::Instruct => instruct::load(source, self)?,
            DatasetKind::Tokens => tokens::load(source, len)?,
        };
        let is_beyond = |id: &u32| *id as usize >= self.config.vocab;
        match sequences.tokens.iter().position(is_beyond) {
            None => Ok(sequences),
            Some(index) => Err(source.fail(format!(
                "token {} of the data has id {}, but the model has only {} embeddings",
                index, sequences.tokens[index], self.config.vocab
            ))),
        }
    }
}

impl DatasetSource {
    /// Reads this data set alone, by [`DataLoader::load`].
    ///
    /// # Errors
    /// Those of [`DataLoader::load`].
    pub fn load(
        &self,
        tokenizer: Option<&TextTokenizer>,
        config: &DecoderConfig,
        sequence_len: u32,
    ) -> Result<Sequences, ModelError> {
        let mut loader = DataLoader {
            tokenizer,
            config,
            sequence_len,
            progress: &mut |_| {},
        };
        let mut loaded = loader.load(std::slice::from_ref(self))?;
        Ok(match loaded.pop() {
            Some(loaded) => loaded.sequences,
            None => Sequences::empty(sequence_len),
        })
    }
}
