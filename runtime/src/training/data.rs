//! Sequences of a data set, from chunks in the blob store.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use concord_models::config::DecoderConfig;
use concord_models::decoder::{Batch, next_tokens};
use concord_proto::manifest::{DataManifest, SequenceEntry};
use concord_proto::{BatchPlan, Digest, JobSpec};

use crate::RuntimeError;
use crate::blobs::Blobs;

/// A data set that is read on demand: chunks stay on disk, and each sequence is checked against its
/// own digest.
pub struct DataSource {
    manifest: Arc<DataManifest>,
    order: BatchPlan,
    vocab: usize,
    /// Chunks that have been fetched.
    here: BTreeSet<Digest>,
}

/// One microbatch.
#[derive(Clone, Debug)]
pub struct Microbatch {
    /// Tokens and targets.
    pub batch: Arc<Batch>,
    /// Its digest, as leaves name it.
    pub digest: Digest,
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
            here: BTreeSet::new(),
        })
    }

    /// Tokens of a sequence.
    pub fn sequence_len(&self) -> usize {
        self.manifest.sequence_len as usize
    }

    /// A microbatch of a step.
    ///
    /// # Errors
    /// [`RuntimeError`] where a chunk is unavailable or is not what the manifest says.
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

    /// The addresses of all chunks.
    pub fn chunks(&self) -> impl Iterator<Item = Digest> {
        self.manifest.chunks.iter().copied()
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
        if self.here.contains(&digest) {
            match self.read(blobs, digest, index, place).await {
                Ok(read) => return Ok(read),
                // Deleted, or changed on disk: it is read again, and fetched again if it must be.
                Err(_) => blobs.doubt(digest),
            }
        }
        blobs.fetch(digest).await?;
        self.here.insert(digest);
        let read = self.read(blobs, digest, index, place).await;
        read.map_err(|why| RuntimeError::BadBlob {
            digest,
            what: "data chunk",
            why,
        })
    }

    /// Tokens and mask of a sequence, which is the `place`-th of its chunk.
    async fn read(
        &self,
        blobs: &Blobs,
        chunk: Digest,
        index: usize,
        place: usize,
    ) -> Result<(Vec<u32>, Vec<u8>), String> {
        let len = self.sequence_len();
        let per_chunk = self.manifest.chunk_sequences as usize;
        let first = index - place;
        let count = per_chunk.min(self.manifest.sequences.len() - first);
        let parts = vec![
            ((place * len * 4) as u64, len * 4),
            ((count * len * 4 + place * len) as u64, len),
        ];
        let read = blobs.parts(chunk, parts).await;
        let unfit = "its length does not fit the manifest".to_string();
        let (bytes, parts) = read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => unfit.clone(),
            _ => error.to_string(),
        })?;
        let Ok([words, mask]) = <[Vec<u8>; 2]>::try_from(parts) else {
            return Err(unfit);
        };
        if bytes != (count * len * 5) as u64 {
            return Err(unfit);
        }
        let tokens: Vec<u32> = words
            .chunks_exact(4)
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
            .collect();
        if SequenceEntry::new(&tokens, &mask) != self.manifest.sequences[index] {
            return Err("a sequence is not what the manifest says".to_string());
        }
        Ok((tokens, mask))
    }
}
