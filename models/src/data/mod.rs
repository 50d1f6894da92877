//! Data sets: text, instructions or token ids in, sequences of one length out.
//!
//! The order and the content of [`Sequences`] are a pure function of the file, the tokenizer and
//! the sequence length. Nothing is shuffled here: that belongs to the job.

mod fields;
mod instruct;
mod load;
mod loader;
mod rows;
mod source;
mod text;
mod tokens;
mod utf8;

pub use load::Loaded;
pub use loader::DataLoader;
pub use source::{DatasetKind, DatasetSource};
pub use utf8::utf8;

/// Sequences of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    /// Tokens in a sequence.
    pub len: u32,
    /// Token ids, `[N, len]` row-major.
    pub tokens: Vec<u32>,
    /// `[N, len]`: 1 where the token is predicted from those before it, else 0. Always 0 at
    /// position 0. A sequence's loss is the sum over its ones.
    pub loss_mask: Vec<u8>,
    /// How a `tokens` file groups its sequences; other kinds leave that to the job.
    pub grouping: Option<Grouping>,
    /// Examples or documents that were read, not counting blank ones.
    pub examples: u32,
    /// Examples that are longer than `len`, whose end was cut off.
    pub truncated: u32,
    /// Examples that were left out: their instruction alone fills `len`, so that nothing would be
    /// predicted.
    pub skipped: u32,
    /// Empty documents, which are left out.
    pub blank: u32,
    /// Tokens at the end of a text that do not fill a sequence, and are left out.
    pub tail: u32,
}

impl Sequences {
    /// No sequences of `len` tokens.
    pub(crate) fn empty(len: u32) -> Self {
        Self {
            len,
            tokens: Vec::new(),
            loss_mask: Vec::new(),
            grouping: None,
            examples: 0,
            truncated: 0,
            skipped: 0,
            blank: 0,
            tail: 0,
        }
    }

    /// The number of sequences.
    pub fn count(&self) -> usize {
        self.tokens
            .len()
            .checked_div(self.len as usize)
            .unwrap_or(0)
    }

    /// The tokens of sequence `index`, or an empty slice beyond the end.
    pub fn tokens_of(&self, index: usize) -> &[u32] {
        self.tokens
            .chunks_exact(self.len.max(1) as usize)
            .nth(index)
            .unwrap_or(&[])
    }

    /// The loss mask of sequence `index`, or an empty slice beyond the end.
    pub fn mask_of(&self, index: usize) -> &[u8] {
        self.loss_mask
            .chunks_exact(self.len.max(1) as usize)
            .nth(index)
            .unwrap_or(&[])
    }
}

/// The axes in front of the sequence in a `tokens` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// Steps in the file.
    pub steps: u32,
    /// Microbatches of a step.
    pub microbatches: u32,
    /// Sequences of a microbatch.
    pub batch: u32,
}
