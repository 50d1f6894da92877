//! A sequence of a data set: tokens, what the loss counts, and the documents that it consists of.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::{Digest, Domain, Hasher};

/// What `micro_batch_size` counts: one or more documents. Positions begin at 0 in each document,
/// and no token sees one of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainingSequence {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// 1 where the loss counts the token, else 0; 0 at the first token of each document, which is
    /// predicted from nothing.
    pub mask: Vec<u8>,
    /// Tokens of each document, none of them 0.
    pub documents: Vec<u32>,
}

/// What a manifest says of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SequenceEntry {
    /// Over the counts below, the tokens, the mask and the lengths of the documents.
    pub digest: Digest,
    /// How many tokens it has.
    pub tokens: u32,
    /// How many documents.
    pub documents: u32,
    /// Tokens that the loss counts.
    pub targets: u32,
}

impl SequenceEntry {
    /// Bytes of the sequence in a chunk.
    pub fn bytes(&self) -> u64 {
        5 * u64::from(self.tokens) + 4 * u64::from(self.documents)
    }
}

impl TrainingSequence {
    /// A sequence of one document.
    pub fn whole(tokens: Vec<u32>, mask: Vec<u8>) -> Self {
        Self {
            documents: vec![tokens.len() as u32],
            tokens,
            mask,
        }
    }

    /// Its entry in a manifest.
    pub fn entry(&self) -> SequenceEntry {
        let mut hasher = Hasher::new(Domain::Sequence);
        let (tokens, documents) = (self.tokens.len() as u32, self.documents.len() as u32);
        hasher.update(&tokens.to_le_bytes());
        hasher.update(&documents.to_le_bytes());
        hasher.update(&self.encode());
        SequenceEntry {
            digest: hasher.finish(),
            tokens,
            documents,
            targets: self.mask.iter().filter(|&&mask| mask == 1).count() as u32,
        }
    }

    /// Its bytes in a chunk: tokens as u32, mask bytes, lengths of documents as u32.
    pub fn encode(&self) -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut bytes: Vec<u8> = words(&self.tokens);
        bytes.extend(&self.mask);
        bytes.extend::<Vec<u8>>(words(&self.documents));
        bytes
    }

    /// Reads what [`Self::encode`] wrote, and holds it to its entry.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8], entry: &SequenceEntry) -> Result<Self, String> {
        if bytes.len() as u64 != entry.bytes() {
            return Err("its length does not fit the manifest".to_string());
        }
        let (words, rest) = bytes.split_at(4 * entry.tokens as usize);
        let (mask, lengths) = rest.split_at(entry.tokens as usize);
        let read = |bytes: &[u8]| -> Vec<u32> {
            let words = bytes.as_chunks::<4>().0;
            words.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let sequence = Self {
            tokens: read(words),
            mask: mask.to_vec(),
            documents: read(lengths),
        };
        if sequence.entry() != *entry {
            return Err("a sequence is not what the manifest says".to_string());
        }
        sequence.check()?;
        Ok(sequence)
    }

    /// Whether its parts fit each other.
    fn check(&self) -> Result<(), String> {
        let total: u64 = self.documents.iter().map(|&len| u64::from(len)).sum();
        if total != self.tokens.len() as u64 || self.documents.contains(&0) {
            return Err("the documents of a sequence do not fill it".to_string());
        }
        let mut first = 0;
        for &len in &self.documents {
            if self.mask[first] != 0 {
                return Err("the loss counts the first token of a document".to_string());
            }
            first += len as usize;
        }
        match self.mask.iter().all(|&mask| mask <= 1) {
            true => Ok(()),
            false => Err("its mask has other bytes than 0 and 1".to_string()),
        }
    }

    /// Without the tokens at its end that the loss does not count: nothing sees them, so no number
    /// depends on them. One token at least is kept.
    #[must_use]
    pub fn trimmed(mut self) -> Self {
        let counted = self.mask.iter().rposition(|&mask| mask == 1);
        let mut left = counted.map_or(1, |last| last + 1).min(self.tokens.len());
        self.tokens.truncate(left);
        self.mask.truncate(left);
        self.documents.retain_mut(|len| {
            *len = (*len).min(left as u32);
            left -= *len as usize;
            *len > 0
        });
        self
    }

    /// Puts the documents of another behind these.
    pub fn append(&mut self, other: Self) {
        self.tokens.extend(other.tokens);
        self.mask.extend(other.mask);
        self.documents.extend(other.documents);
    }
}
