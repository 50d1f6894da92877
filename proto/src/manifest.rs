//! Manifests: what a model, a data set and a training state consist of, by content address.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, Hasher, merkle};

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

/// A data set as sequences of one length.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DataManifest {
    /// Tokens in a sequence.
    pub sequence_len: u32,
    /// Sequences in a chunk; the last may have fewer.
    pub chunk_sequences: u32,
    /// Blob addresses of the chunks: all tokens as u32, then all mask bytes.
    pub chunks: Vec<Digest>,
    /// Per sequence: its digest and how many of its tokens are to be predicted.
    pub sequences: Vec<SequenceEntry>,
}

/// One sequence of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SequenceEntry {
    /// Over tokens and mask.
    pub digest: Digest,
    /// Tokens that the loss counts.
    pub targets: u32,
}

impl SequenceEntry {
    /// The entry of a sequence. Tokens with a mask of 1 are to be predicted.
    pub fn new(tokens: &[u32], mask: &[u8]) -> Self {
        let mut hasher = Hasher::new(Domain::Sequence);
        tokens
            .iter()
            .for_each(|token| hasher.update(&token.to_le_bytes()));
        hasher.update(mask);
        let targets = mask.iter().skip(1).filter(|&&m| m == 1).count() as u32;
        Self {
            digest: hasher.finish(),
            targets,
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
