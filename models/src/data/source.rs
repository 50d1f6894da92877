//! Which file is a data set, of which kind, and its way into sequences.

use std::path::PathBuf;
use std::str::FromStr;

use super::{Sequences, instruct, text, tokens};
use crate::config::DecoderConfig;
use crate::error::{ModelError, nearest_hint};
use concord_text::TextTokenizer;

/// The kind of a data set, by its `type` in a job file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetKind {
    /// `text`: a text file is one document; a `.jsonl` file has one in `field` of each line. Each
    /// is tokenized whole, with special tokens as the tokenizer adds them; the documents are
    /// joined and cut into full sequences; the tail is dropped. Every token but the first of a
    /// sequence is predicted.
    Text,
    /// `instruct`: each line of a `.jsonl` file is an example. A sequence is the instruction and
    /// a line feed (with the special tokens that begin a text), the output, and the end-of-text
    /// token; only output and end are predicted. Short ones are padded with token 0, which is
    /// never predicted and, since attention looks back only, never seen by what is. Long ones
    /// lose their end, and are counted.
    Instruct,
    /// `tokens`: a safetensors file with I64 `tokens` [step, microbatch, batch, sequence], taken
    /// as it is. Every token but the first of a sequence is predicted.
    Tokens,
}

impl DatasetKind {
    /// Every kind.
    pub const ALL: [DatasetKind; 3] = [
        DatasetKind::Text,
        DatasetKind::Instruct,
        DatasetKind::Tokens,
    ];

    /// The name in a job file.
    pub fn name(self) -> &'static str {
        match self {
            DatasetKind::Text => "text",
            DatasetKind::Instruct => "instruct",
            DatasetKind::Tokens => "tokens",
        }
    }
}

impl FromStr for DatasetKind {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        DatasetKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| ModelError::UnknownDatasetKind {
                found: name.to_string(),
                hint: nearest_hint(name, &DatasetKind::ALL.map(DatasetKind::name)),
            })
    }
}

/// A data set of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSource {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub kind: DatasetKind,
    /// For `text` in `.jsonl`: the key of the document.
    pub field: String,
    /// For `instruct`: the key of the instruction.
    pub field_instruction: String,
    /// For `instruct`: the key of the output.
    pub field_output: String,
}

impl DatasetSource {
    /// A data set with the usual field names: `text`; `instruction` and `output`.
    pub fn new(path: impl Into<PathBuf>, kind: DatasetKind) -> Self {
        Self {
            path: path.into(),
            kind,
            field: "text".to_string(),
            field_instruction: "instruction".to_string(),
            field_output: "output".to_string(),
        }
    }

    /// Reads the file into sequences of `sequence_len` tokens.
    ///
    /// `tokenizer` is needed for all kinds but `tokens`. The end-of-text token of `instruct` is
    /// the tokenizer's, or else the model's first.
    ///
    /// # Errors
    /// [`ModelError`] naming the file, and the line where there is one; never an empty result.
    pub fn load(
        &self,
        tokenizer: Option<&TextTokenizer>,
        config: &DecoderConfig,
        sequence_len: u32,
    ) -> Result<Sequences, ModelError> {
        if sequence_len as usize > config.max_positions {
            return Err(ModelError::SequenceTooLong {
                asked: sequence_len,
                max: config.max_positions,
            });
        }
        if sequence_len < 2 {
            return Err(self.fail(format!(
                "sequence_len is {sequence_len}, but predicting takes at least 2 tokens"
            )));
        }
        let needed = || {
            tokenizer.ok_or_else(|| {
                self.fail(format!(
                    "type `{}` needs the model's tokenizer",
                    self.kind.name()
                ))
            })
        };
        let sequences = match self.kind {
            DatasetKind::Text => text::load(self, needed()?, sequence_len)?,
            DatasetKind::Instruct => instruct::load(self, needed()?, config, sequence_len)?,
            DatasetKind::Tokens => tokens::load(self, sequence_len)?,
        };
        match sequences
            .tokens
            .iter()
            .position(|id| *id as usize >= config.vocab)
        {
            None => Ok(sequences),
            Some(index) => Err(self.fail(format!(
                "token {} of the data has id {}, but the model has only {} embeddings",
                index, sequences.tokens[index], config.vocab
            ))),
        }
    }

    /// The error that this data set cannot be used as a whole.
    pub(super) fn fail(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Dataset {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }
}
