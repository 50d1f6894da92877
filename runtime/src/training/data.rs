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

const UNFIT: &str = "its length does not fit the manifest";

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

/// Gives a chunk of the data by its address.
pub type ChunkReader<'a> = dyn FnMut(Digest) -> Result<Arc<Vec<u8>>, RuntimeError> + 'a;

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
        let mut sequences = Vec::with_capacity(indices.len());
        for &index in &indices {
            sequences.push(self.sequence(blobs, index as usize).await?);
        }
        self.joined(step, &indices, sequences)
    }

    /// A microbatch of a step, of chunks that `chunk` gives.
    ///
    /// # Errors
    /// That of `chunk`; [`RuntimeError`] where a chunk is not what the manifest says.
    pub fn microbatch_of(
        &mut self,
        chunk: &mut ChunkReader<'_>,
        step: u32,
        microbatch: u32,
    ) -> Result<Microbatch, RuntimeError> {
        let indices = self.order.sequences(step, microbatch);
        let mut sequences = Vec::with_capacity(indices.len());
        for &index in &indices {
            let (digest, place) = self.chunk_of(index as usize)?;
            let (before, entry) = self.within(index as usize, place);
            let bytes = chunk(digest)?;
            let range = before as usize..(before + entry.bytes()) as usize;
            let read = match bytes.get(range) {
                Some(bytes) => TrainingSequence::decode(bytes, &entry),
                None => Err(UNFIT.to_string()),
            };
            sequences.push(read.map_err(|why| bad_chunk(digest, why))?);
        }
        self.joined(step, &indices, sequences)
    }

    /// The microbatch of these sequences.
    fn joined(
        &self,
        step: u32,
        indices: &[u64],
        sequences: Vec<TrainingSequence>,
    ) -> Result<Microbatch, RuntimeError> {
        let mut all = TrainingSequence::default();
        let mut lengths = Vec::with_capacity(sequences.len());
        for sequence in sequences {
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
        let digest = concord_proto::microbatch_digest(&self.manifest, indices);
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
        let (digest, place) = self.chunk_of(index)?;
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
        read.map_err(|why| bad_chunk(digest, why))
    }

    /// The chunk of a sequence, and the place of the sequence in it.
    fn chunk_of(&self, index: usize) -> Result<(Digest, usize), RuntimeError> {
        let per_chunk = self.manifest.chunk_sequences as usize;
        let (chunk, place) = (index / per_chunk, index % per_chunk);
        let digest = self.manifest.chunks.get(chunk).copied();
        let lacking = || RuntimeError::Unsupported(format!("its data set lacks chunk {chunk}"));
        Ok((digest.ok_or_else(lacking)?, place))
    }

    /// The bytes before a sequence in its chunk, of which it is the `place`-th, and its entry.
    fn within(&self, index: usize, place: usize) -> (u64, SequenceEntry) {
        let sequences = &self.manifest.sequences;
        let before = sequences[index - place..index].iter();
        (before.map(SequenceEntry::bytes).sum(), sequences[index])
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
        let (before, entry) = self.within(index, place);
        let read = blobs
            .parts(chunk, vec![(before, entry.bytes() as usize)])
            .await;
        let unfit = UNFIT.to_string();
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

fn bad_chunk(digest: Digest, why: String) -> RuntimeError {
    RuntimeError::BadBlob {
        digest,
        what: "data chunk",
        why,
    }
}
