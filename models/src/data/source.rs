//! A data set of a job: its file, its kind and the names of its fields.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{ModelError, nearest_hint};

/// Extensions of files of type `text` that have rows.
const ROWS: [&str; 3] = ["jsonl", "ndjson", "json"];

/// Extensions of files that may hold texts, but neither as plain text nor as rows of JSON.
const PACKED: [&str; 12] = [
    "csv", "tsv", "parquet", "arrow", "gz", "zst", "zip", "xz", "bz2", "pdf", "xlsx", "pkl",
];

/// The kind of a data set, by its `type` in a job file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetKind {
    /// `text`: a text file is one document, with line ends of `\r\n` read as `\n`; a `.jsonl` or
    /// `.json` file has one in `field` of each row. Each is tokenized whole, with special tokens
    /// as the tokenizer adds them; the documents are joined, with the end-of-text token between
    /// two, and cut into full sequences; the tail is left out, and counted. Every token but the
    /// first of a sequence is predicted.
    Text,
    /// `instruct`: each row of a `.jsonl` or `.json` file is an example. A sequence is the
    /// instruction and a line feed (with the special tokens that begin a text), the input and a
    /// line feed where there is one, the output, and the end-of-text token; only output and end
    /// are predicted. Short sequences are padded with token 0, which is never predicted and comes
    /// after all predicted tokens, which cannot attend to it. Long ones lose their end, and are
    /// counted.
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
    /// For `text` in rows: the key of the document.
    pub field: String,
    /// For `instruct`: the key of the instruction.
    pub field_instruction: String,
    /// For `instruct`: the key of what the instruction is about; rows may lack it.
    pub field_input: String,
    /// For `instruct`: the key of the output.
    pub field_output: String,
    /// Keys of rows that are left out on purpose.
    pub ignore_fields: Vec<String>,
}

impl DatasetSource {
    /// A data set with the usual field names: `text`; `instruction`, `input` and `output`.
    pub fn new(path: impl Into<PathBuf>, kind: DatasetKind) -> Self {
        Self {
            path: path.into(),
            kind,
            field: "text".to_string(),
            field_instruction: "instruction".to_string(),
            field_input: "input".to_string(),
            field_output: "output".to_string(),
            ignore_fields: Vec::new(),
        }
    }

    /// Whether the file has rows with fields; else it is one text, or token ids.
    pub fn has_rows(&self) -> bool {
        match self.kind {
            DatasetKind::Text => ROWS.contains(&self.ending().as_str()),
            DatasetKind::Instruct => true,
            DatasetKind::Tokens => false,
        }
    }

    /// Refuses a path that cannot be read as a data set, with a message that is clearer than the
    /// I/O error that would follow.
    pub(super) fn check_path(&self) -> Result<(), ModelError> {
        let ending = self.ending();
        if PACKED.contains(&ending.as_str()) {
            return Err(self.fail(format!(
                ".{ending} files are not read; write the rows to a .jsonl file, one JSON object a \
                 line"
            )));
        }
        if self.path.is_dir() {
            return Err(self.fail("cannot read a folder; name each of its files"));
        }
        match self.path.exists() {
            true => Ok(()),
            false => Err(self.fail(
                "cannot read it: there is no such file; data sets of the Hugging Face hub are not \
                 downloaded, so fetch the file first",
            )),
        }
    }

    /// The extension of the file's name, in lower case.
    fn ending(&self) -> String {
        let ending = self.path.extension().unwrap_or_default();
        ending.to_string_lossy().to_lowercase()
    }

    /// The error that this data set cannot be used as a whole.
    pub(super) fn fail(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Dataset {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }
}
