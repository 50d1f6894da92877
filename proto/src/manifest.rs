//! Manifests: what a model, a data set and a training state consist of, by content address.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, merkle};
use crate::sequence::SequenceEntry;

/// The name of a tensor of a model, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ModelTensor {
    /// Its Hugging Face name.
    pub name: String,
    /// Blob address: a digest of its numbers as f32, in whatever format they are stored.
    pub blob: Digest,
    /// Bytes of its elements as f32.
    pub bytes: u64,
}

/// A model: its configuration and its tensors in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ModelManifest {
    /// Its configuration as canonical JSON: every setting that changes a number, and no other.
    pub config: String,
    pub tensors: Vec<ModelTensor>,
}

/// A data set as sequences.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DataManifest {
    /// The most tokens in a sequence.
    pub sequence_len: u32,
    /// Sequences in a chunk; the last may have fewer.
    pub chunk_sequences: u32,
    /// Blob addresses of the chunks: one sequence after another, each as
    /// [`TrainingSequence::encode`](crate::TrainingSequence::encode) writes it.
    pub chunks: Vec<Digest>,
    /// What each sequence has.
    pub sequences: Vec<SequenceEntry>,
}

impl DataManifest {
    /// Checks what can be checked without the chunks.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self) -> Result<(), String> {
        let count = self.sequences.len();
        if count == 0 {
            return Err("it has no sequence".to_string());
        }
        if count > u32::MAX as usize {
            return Err("it has too many sequences".to_string());
        }
        if self.chunk_sequences == 0
            || count.div_ceil(self.chunk_sequences as usize) != self.chunks.len()
        {
            return Err("its chunks do not hold its sequences".to_string());
        }
        let fits = |entry: &SequenceEntry| {
            (1..=self.sequence_len).contains(&entry.tokens)
                && (1..=entry.tokens).contains(&entry.documents)
                && entry.targets <= entry.tokens - entry.documents
        };
        match self.sequences.iter().position(|entry| !fits(entry)) {
            None => Ok(()),
            Some(index) => Err(format!(
                "the counts of sequence {index} do not fit each other"
            )),
        }
    }
}

/// The value and the optimizer moments of one trained tensor, by blob address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateEntry {
    /// The tensor.
    pub value: Digest,
    pub first_moment: Digest,
    pub second_moment: Digest,
}

/// The trained state after `step` steps: one entry for each tensor in `trainable` of the job spec.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateManifest {
    /// Steps done.
    pub step: u32,
    /// In the order of the names.
    pub entries: Vec<StateEntry>,
}

impl StateManifest {
    /// The Merkle roots over the values and over the moments, as a step record has them.
    pub fn roots(&self) -> (Digest, Digest) {
        state_roots(&self.entries)
    }
}

/// The Merkle roots over the values and over the moments of `entries`.
pub fn state_roots(entries: &[StateEntry]) -> (Digest, Digest) {
    let values: Vec<Digest> = entries.iter().map(|entry| entry.value).collect();
    let moments: Vec<Digest> = entries
        .iter()
        .flat_map(|entry| [entry.first_moment, entry.second_moment])
        .collect();
    (merkle::root(&values), merkle::root(&moments))
}
