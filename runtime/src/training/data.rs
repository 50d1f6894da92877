//! Sequences of a data set, from chunks in the blob store.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;

use concord_kernels::ops::Lengths;
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Batch, StepRegularization};
use concord_proto::StepWork;
use concord_proto::manifest::DataManifest;
use concord_proto::{BatchPlan, Digest, JobSpec, SequenceEntry, TrainingSequence};

use crate::RuntimeError;
use crate::blobs::Blobs;

/// A data set that is read on demand: chunks stay on disk, and each sequence is checked against its
/// own digest.
pub struct DataSource {
    manifest: Arc<DataManifest>,
    order: BatchPlan,
    /// How batches are regularised, but for the step.
    regularization: StepRegularization,
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
        let unfit = |why| RuntimeError::Unsupported(format!("its data set: {why}"));
        spec.check_data(&manifest).map_err(unfit)?;
        let (len, max) = (manifest.sequence_len as usize, config.max_positions);
        if len > max {
            let why = format!("its sequences have {len} tokens, the model takes 1 to {max}");
            return Err(RuntimeError::Unsupported(why));
        }
        let order = BatchPlan::new(spec, manifest.sequences.len() as u64);
        Ok(Self {
            manifest,
            order,
            regularization: crate::spec::regularization(spec, 0),
            vocab: config.vocab,
            here: BTreeSet::new(),
        })
    }

    /// The most tokens of a sequence.
    pub fn sequence_len(&self) -> usize {
        self.manifest.sequence_len as usize
    }

    /// The microbatches of a step that a replica computes, whose run of those of an update is
    /// `start..end`.
    pub fn run_of(&self, step: u32, start: u32, end: u32) -> std::ops::Range<u32> {
        self.order.spec().run_of(step, start, end)
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
        let mut all = TrainingSequence::default();
        let mut lengths = Vec::with_capacity(indices.len());
        for &index in &indices {
            let sequence = self.sequence(blobs, index as usize).await?;
            lengths.push(sequence.tokens.len() as u32);
            all.append(sequence);
        }
        let beyond = |&&token: &&u32| token as usize >= self.vocab;
        if let Some(token) = all.tokens.iter().find(beyond) {
            let why = format!("token {token} is outside of the model's {}", self.vocab);
            return Err(RuntimeError::Unsupported(why));
        }
        let (lengths, documents) = (Lengths::new(lengths), Lengths::new(all.documents));
        let mut batch = Batch::new(lengths, documents, all.tokens, &all.mask);
        batch.regularization = match self.order.spec().work(step) {
            StepWork::Update(update) => StepRegularization {
                step: update,
                ..self.regularization
            },
            // Nothing is drawn, and the loss has no term of its own; targets are smoothed, as the
            // trainer of transformers has it.
            StepWork::Evaluation { .. } => StepRegularization {
                label_smoothing: self.regularization.label_smoothing,
                ..StepRegularization::default()
            },
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
    ) -> Result<TrainingSequence, RuntimeError> {
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

    /// A sequence, which is the `place`-th of its chunk.
    async fn read(
        &self,
        blobs: &Blobs,
        chunk: Digest,
        index: usize,
        place: usize,
    ) -> Result<TrainingSequence, String> {
        let first = index - place;
        let end =
            (first + self.manifest.chunk_sequences as usize).min(self.manifest.sequences.len());
        let bytes_of =
            |entries: &[SequenceEntry]| -> u64 { entries.iter().map(SequenceEntry::bytes).sum() };
        let entry = self.manifest.sequences[index];
        let before = bytes_of(&self.manifest.sequences[first..index]);
        let read = blobs
            .parts(chunk, vec![(before, entry.bytes() as usize)])
            .await;
        let unfit = "its length does not fit the manifest".to_string();
        let (bytes, mut parts) = read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => unfit.clone(),
            _ => error.to_string(),
        })?;
        if bytes != bytes_of(&self.manifest.sequences[first..end]) {
            return Err(unfit);
        }
        TrainingSequence::decode(&parts.pop().ok_or(unfit)?, &entry)
    }
}
