//! Sequences of a data set, from chunks in the blob store.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_models::config::DecoderConfig;
use concord_models::decoder::{Batch, next_tokens};
use concord_proto::manifest::{DataManifest, SequenceEntry};
use concord_proto::{BatchPlan, JobSpec};

use crate::RuntimeError;
use crate::blobs::Blobs;

/// Chunks kept in memory.
const CHUNKS_KEPT: usize = 16;

/// A data set that is read on demand.
pub struct DataSource {
    manifest: Arc<DataManifest>,
    order: BatchPlan,
    vocab: usize,
    chunks: BTreeMap<usize, Arc<Vec<u8>>>,
}

/// One microbatch.
#[derive(Clone, Debug)]
pub struct Microbatch {
    /// Tokens and targets.
    pub batch: Arc<Batch>,
    /// Its digest, as leaves name it.
    pub digest: concord_proto::Digest,
}

impl DataSource {
    /// The data set of a spec, for a model of this configuration.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] for a data set without sequences, or with sequences that the
    /// model cannot take.
    pub fn new(
        spec: &JobSpec,
        manifest: Arc<DataManifest>,
        config: &DecoderConfig,
    ) -> Result<Self, RuntimeError> {
        if manifest.sequences.is_empty() || manifest.chunk_sequences == 0 {
            return Err(RuntimeError::Unsupported(
                "its data set has no sequences".into(),
            ));
        }
        let len = manifest.sequence_len as usize;
        if len == 0 || len > config.max_positions {
            let max = config.max_positions;
            let why = format!("its sequences have {len} tokens, the model takes 1 to {max}");
            return Err(RuntimeError::Unsupported(why));
        }
        let order = BatchPlan::new(spec, manifest.sequences.len() as u64);
        Ok(Self {
            manifest,
            order,
            vocab: config.vocab,
            chunks: BTreeMap::new(),
        })
    }

    /// Tokens of a sequence.
    pub fn sequence_len(&self) -> usize {
        self.manifest.sequence_len as usize
    }

    /// A microbatch of a step.
    ///
    /// # Errors
    /// [`RuntimeError`] where a chunk cannot be had or is not what the manifest says.
    pub async fn microbatch(
        &mut self,
        blobs: &Blobs,
        step: u32,
        microbatch: u32,
    ) -> Result<Microbatch, RuntimeError> {
        let indices = self.order.sequences(step, microbatch);
        let len = self.sequence_len();
        let (mut tokens, mut mask) = (Vec::new(), Vec::new());
        for &index in &indices {
            let (sequence, sequence_mask) = self.sequence(blobs, index as usize).await?;
            tokens.extend(sequence);
            mask.extend(sequence_mask);
        }
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocab) {
            let why = format!("token {token} is outside of the model's {}", self.vocab);
            return Err(RuntimeError::Unsupported(why));
        }
        let targets = next_tokens(&tokens, &mask, len);
        let batch = Batch {
            sequences: indices.len(),
            sequence_len: len,
            tokens,
            targets,
        };
        let digest = concord_proto::microbatch_digest(&self.manifest, &indices);
        Ok(Microbatch {
            batch: Arc::new(batch),
            digest,
        })
    }

    async fn sequence(
        &mut self,
        blobs: &Blobs,
        index: usize,
    ) -> Result<(Vec<u32>, Vec<u8>), RuntimeError> {
        let per_chunk = self.manifest.chunk_sequences as usize;
        let (chunk, place) = (index / per_chunk, index % per_chunk);
        let digest = *self.manifest.chunks.get(chunk).ok_or_else(|| {
            RuntimeError::Unsupported(format!("its data set lacks chunk {chunk}"))
        })?;
        if !self.chunks.contains_key(&chunk) {
            if self.chunks.len() >= CHUNKS_KEPT {
                self.chunks.pop_first();
            }
            self.chunks.insert(chunk, blobs.get(digest).await?);
        }
        let bytes = &self.chunks[&chunk];
        let len = self.sequence_len();
        let count = per_chunk.min(self.manifest.sequences.len() - chunk * per_chunk);
        let bad = |why: &str| RuntimeError::BadBlob {
            digest,
            what: "data chunk",
            why: why.into(),
        };
        if bytes.len() != count * len * 5 {
            return Err(bad("its length does not fit the manifest"));
        }
        let words = bytes[place * len * 4..(place + 1) * len * 4].chunks_exact(4);
        let tokens: Vec<u32> = words
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
            .collect();
        let masks = &bytes[count * len * 4..];
        let mask = masks[place * len..(place + 1) * len].to_vec();
        if SequenceEntry::new(&tokens, &mask) != self.manifest.sequences[index] {
            return Err(bad("a sequence is not what the manifest says"));
        }
        Ok((tokens, mask))
    }
}
