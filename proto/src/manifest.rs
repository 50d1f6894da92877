//! Manifests: what a model, a data set and a training state consist of, by content address.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::canonical;
use crate::crypto::{Digest, Domain, Hasher, merkle};

/// How the elements of a stored tensor are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum StoredDtype {
    /// IEEE binary32, little-endian.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl StoredDtype {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// What precedes the elements in the blob of a tensor, so that its address binds dtype and shape.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TensorHeader {
    /// How the elements are written.
    pub dtype: StoredDtype,
    /// Row-major shape.
    pub shape: Vec<u64>,
}

impl TensorHeader {
    /// A hasher that has seen this header: what the elements follow.
    pub fn hasher(&self) -> Hasher {
        let mut hasher = Hasher::new(Domain::Blob);
        hasher.update(&canonical::encode(self));
        hasher
    }

    /// The address of the blob of this header and `elements`, without allocating the blob.
    pub fn digest(&self, elements: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(elements);
        hasher.finish()
    }

    /// Bytes of all elements, or nothing where the product overflows.
    pub fn element_bytes(&self) -> Option<u64> {
        let count = self
            .shape
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
        count.checked_mul(self.dtype.bytes())
    }

    /// The blob of a tensor: this header, then the elements.
    pub fn blob(&self, elements: &[u8]) -> Vec<u8> {
        [&canonical::encode(self)[..], elements].concat()
    }

    /// The header that `bytes` begin with, and its length.
    ///
    /// # Errors
    /// A sentence, where they begin with none.
    pub fn peek(bytes: &[u8]) -> Result<(Self, usize), String> {
        let mut rest = bytes;
        let header = Self::deserialize(&mut rest).map_err(|error| format!("no tensor: {error}"))?;
        if header.shape.len() > crate::limits::RANK_MAX {
            return Err(format!("a tensor of rank {}", header.shape.len()));
        }
        Ok((header, bytes.len() - rest.len()))
    }

    /// Splits the blob of a tensor into header and elements.
    ///
    /// # Errors
    /// A sentence, where the blob is no tensor or its length does not fit its shape.
    pub fn split(blob: &[u8]) -> Result<(Self, &[u8]), String> {
        let (header, len) = Self::peek(blob)?;
        let rest = &blob[len..];
        match header.element_bytes() {
            Some(bytes) if bytes == rest.len() as u64 => Ok((header, rest)),
            _ => Err(format!(
                "{} bytes do not fill the shape {:?}",
                rest.len(),
                header.shape
            )),
        }
    }
}

/// The name of a tensor of a model, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ModelTensor {
    /// Its Hugging Face name.
    pub name: String,
    /// Blob address: header and elements.
    pub blob: Digest,
    /// Bytes of the elements.
    pub bytes: u64,
}

/// A model: its configuration and its tensors in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ModelManifest {
    /// The text of config.json.
    pub config_json: String,
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
